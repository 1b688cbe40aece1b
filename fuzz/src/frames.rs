//! A WebSocket's bytes: however they are cut, the same is heard; and what is heard is what RFC 6455 says, by a reader of
//! our own that takes one frame after the other from bytes that are all there.

use carillon::fuzzing::{FrameDecoder, Incoming};

/// The longest message, small so that fuzzers reach it.
const LIMIT: usize = 300;

/// Checks one input: the first byte says how many that follow are lengths of pieces, and whether frames are built from
/// the rest or it is taken as it is.
///
/// # Panics
/// Where a property does not hold.
pub fn check(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let (sizes, rest) = rest.split_at(usize::from(first & 7).min(rest.len()));
    let wire = if first & 8 == 0 { rest.to_vec() } else { built(rest) };
    let whole = Outcome::of(&wire, &[]);
    assert_eq!(Outcome::of(&wire, &[1]), whole, "byte by byte");
    assert_eq!(Outcome::of(&wire, sizes), whole, "in pieces of {sizes:?}");
    whole.compare(&expected(&wire));
}

/// Frames from a description: an opcode with its flags, a length, a key, a payload. Most of what a fuzzer would make of
/// raw bytes breaks off at the first header.
fn built(mut plan: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    while let [first, length, rest @ ..] = plan {
        let stretch = usize::from(*length >> 6 == 3);
        let length = usize::from(*length & 63) + stretch * 250;
        wire.push(*first);
        match length {
            0..=125 => wire.push(0x80 | length as u8),
            _ => {
                wire.push(0x80 | 126);
                wire.extend((length as u16).to_be_bytes());
            }
        }
        let key = [*first, length as u8, 0, 7];
        wire.extend(key);
        let (payload, next) = rest.split_at(length.min(rest.len()));
        let filled = payload.iter().copied().chain(std::iter::repeat_n(b'x', length - payload.len()));
        wire.extend(filled.enumerate().map(|(at, byte)| byte ^ key[at % 4]));
        plan = next;
    }
    wire
}

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    heard: Vec<Incoming>,
    replies: Vec<u8>,
    open: bool,
}

impl Outcome {
    /// In pieces of these sizes, again and again; without sizes in one piece.
    fn of(wire: &[u8], sizes: &[u8]) -> Self {
        let mut decoder = FrameDecoder::new(LIMIT);
        let (mut heard, mut replies, mut rest) = (Vec::new(), Vec::new(), wire);
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() && !ended(&heard) {
            let size = sizes.next().map_or(rest.len(), |size| usize::from(*size).max(1)).min(rest.len());
            let (piece, later) = rest.split_at(size);
            heard.append(&mut decoder.take(piece, &mut replies));
            rest = later;
        }
        let last = heard.iter().position(|heard| ended(std::slice::from_ref(heard)));
        assert!(last.is_none_or(|last| last + 1 == heard.len()), "something after the end: {heard:?}");
        Self { heard, replies, open: decoder.is_open() }
    }

    fn compare(&self, expected: &Expected) {
        let broken = matches!(self.heard.last(), Some(Incoming::Broken(_)));
        let said = &self.heard[..self.heard.len() - usize::from(broken)];
        let codes = said.iter().map(|heard| match heard {
            Incoming::Closed(_) => Incoming::Closed(None),
            other => other.clone(),
        });
        assert_eq!(codes.collect::<Vec<_>>(), expected.heard);
        assert!(self.replies.starts_with(&expected.pongs), "{:?} and not {:?}", self.replies, expected.pongs);
        if broken {
            assert!(expected.broken, "{:?}", self.heard.last());
        } else if expected.broken {
            assert!(expected.partial, "taken as good: {self:?}");
        }
        if let Some(Incoming::Broken(code)) = self.heard.last() {
            assert!([1002, 4400].contains(code), "{code}");
        } else if !expected.broken && !ended(&self.heard) {
            assert_eq!(self.open, expected.open, "memory is held just as long as something is open");
        }
        for heard in &self.heard {
            if let Incoming::Text(text) = heard {
                assert!(text.len() <= LIMIT);
            }
        }
    }
}

fn ended(heard: &[Incoming]) -> bool {
    matches!(heard.last(), Some(Incoming::Closed(_) | Incoming::Broken(_)))
}

/// What RFC 6455 says of some bytes.
#[derive(Default)]
struct Expected {
    heard: Vec<Incoming>,
    pongs: Vec<u8>,
    /// The protocol is broken, or a message too large or not UTF-8.
    broken: bool,
    /// The frame that breaks it is not there to its end, so that a reader may not have seen it yet.
    partial: bool,
    /// A frame or a message has begun and not ended.
    open: bool,
}

fn expected(mut wire: &[u8]) -> Expected {
    let mut all = Expected::default();
    // The open message: whether it is text, and what has come of it.
    let mut message: Option<(bool, Vec<u8>)> = None;
    loop {
        all.open = !wire.is_empty() || message.is_some();
        let Some(frame) = Frame::read(&mut wire) else { return all };
        all.broken = frame.is_wrong(message.as_ref());
        all.partial = frame.payload.is_none();
        let Some(payload) = frame.payload.filter(|_| !all.broken) else { return all };
        match frame.opcode {
            8 => {
                all.broken = payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_err();
                if !all.broken {
                    all.heard.push(Incoming::Closed(None));
                }
                return all;
            }
            9 => all.pongs.extend([&[0x8A, payload.len() as u8], &*payload].concat()),
            10 => {}
            opcode => {
                let (text, bytes) = message.get_or_insert((opcode == 1, Vec::new()));
                bytes.extend(payload);
                let utf8 = std::str::from_utf8(bytes);
                let good =
                    !*text || utf8.is_ok() || utf8.is_err_and(|e| e.error_len().is_none() && !frame.fin);
                if !good || bytes.len() > LIMIT {
                    all.broken = true;
                    return all;
                }
                if frame.fin {
                    let text = text.then(|| String::from_utf8_lossy(bytes).into_owned());
                    all.heard.push(text.map_or(Incoming::Binary, Incoming::Text));
                    message = None;
                }
            }
        }
    }
}

struct Frame {
    fin: bool,
    reserved: bool,
    opcode: u8,
    masked: bool,
    length: u64,
    /// `None`: not all of it is there.
    payload: Option<Vec<u8>>,
}

impl Frame {
    /// The frame at the front; `None` where not even its header is all there.
    fn read(wire: &mut &[u8]) -> Option<Self> {
        let (&first, &second) = (wire.first()?, wire.get(1)?);
        let extended = [2, 8, 0].get(usize::from(second & 0x7F).wrapping_sub(126)).copied().unwrap_or(0);
        let masked = second & 0x80 != 0;
        let key = 2 + extended;
        let start = key + if masked { 4 } else { 0 };
        let header = wire.get(..start)?;
        let length = match extended {
            0 => u64::from(second & 0x7F),
            _ => header[2..key].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let key = if masked { &header[key..] } else { &[0; 4] };
        let unmasked =
            |payload: &[u8]| payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
        let payload = end.and_then(|end| wire.get(start..end)).map(unmasked);
        if let (Some(end), true) = (end, payload.is_some()) {
            *wire = &wire[end..];
        }
        let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70 != 0, first & 0x0F);
        Some(Self { fin, reserved, opcode, masked, length, payload })
    }

    /// What the header alone breaks (RFC 6455, 5.1 to 5.5), with the open message.
    fn is_wrong(&self, message: Option<&(bool, Vec<u8>)>) -> bool {
        let control = self.opcode >= 8;
        let order = match self.opcode {
            0 => message.is_none(),
            1 | 2 => message.is_some(),
            _ => false,
        };
        self.reserved
            || !self.masked
            || !matches!(self.opcode, 0..=2 | 8..=10)
            || (control && (!self.fin || self.length > 125))
            || (self.opcode == 8 && self.length == 1)
            || order
            || self.length > LIMIT as u64
    }
}
