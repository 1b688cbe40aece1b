//! Reads Rust sources just closely enough: files, paths in the code, and functions. No parser, because a path is all that
//! the ladder is about.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The Rust files in a folder and below it, but not in folders whose names begin with a dot.
pub(super) fn sources(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place).into_iter().flatten() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What follows each occurrence of `prefix` that begins a path.
pub(super) fn paths<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        (!before.is_alphanumeric() && !['_', ':'].contains(&before)).then(|| &code[at + prefix.len()..])
    })
}

/// The modules among [`names`].
pub(super) fn first_names(rest: &str) -> Vec<String> {
    names(rest).into_iter().filter(|name| starts_lower(name)).collect()
}

/// The first names of `name…`, or of each element of `{name…, {…}, name…}`.
pub(super) fn names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let (mut names, mut depth, mut fresh) = (Vec::new(), 1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            _ if depth == 1 && fresh && !c.is_whitespace() => {
                names.push(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

pub(super) fn starts_lower(name: &str) -> bool {
    name.starts_with(|c: char| c.is_lowercase())
}

/// The code alone, so that a link in a comment or a word in a message is not taken for a path.
pub(super) fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                end
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if ["'\"'", "'\\\"'", "'{'", "'}'"].iter().any(|quoted| rest.starts_with(quoted)) {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        // Lines stay where they are.
        code.extend(std::iter::once(' ').chain(rest[..skip].chars().filter(|c| *c == '\n')));
        rest = &rest[skip..];
    }
    code
}

/// How many `#` a raw string begins with, if one begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The functions in code without comments and strings: name, first line and number of lines.
pub(super) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // A semicolon before any brace: a declaration. `[u8; 4]` in the arguments is none.
        let mut depth = 0_i32;
        let mut square = 0_i32;
        let end = code[at..].char_indices().find_map(|(offset, c)| {
            match c {
                '[' => square += 1,
                ']' => square -= 1,
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && c == '}' || depth == 0 && square == 0 && c == ';').then_some((offset, c))
        });
        if let Some((length, '}')) = end
            && !before.is_alphanumeric()
            && before != '_'
            && !name.is_empty()
        {
            let line = code[..at].matches('\n').count() + 1;
            found.push((name, line, code[at..at + length].matches('\n').count() + 1));
        }
    }
    found
}
