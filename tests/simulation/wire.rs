//! Bytes on a connection, as clients make and read them: frames of WebSockets, chunks of HTTP.

/// A client's frame; a mask of zeros changes nothing.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0xFE);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes a whole chunk from the front.
pub(crate) fn chunk(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let start = buffer.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let size = usize::from_str_radix(std::str::from_utf8(&buffer[..start - 2]).ok()?, 16).ok()?;
    let text = buffer.get(start..start + size)?.to_vec();
    buffer.get(start + size + 1)?;
    buffer.drain(..start + size + 2);
    Some(text)
}

/// Takes a whole frame from the front: opcode and payload.
pub(crate) fn frame(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (opcode, short) = (*buffer.first()? & 0x0F, usize::from(*buffer.get(1)?));
    let (start, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]))),
        127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?) as usize),
        short => (2, short),
    };
    if buffer.len() < start + length {
        return None;
    }
    let payload = buffer[start..start + length].to_vec();
    buffer.drain(..start + length);
    Some((opcode, payload))
}
