//! What an archive says without its times: a text to compare.

const BLOCK: usize = 512;
/// GNU tar fills its archives up to this.
const RECORD: usize = 10240;

/// Every entry with all fields but times and checksums, then how the archive ends. Extended headers
/// that hold nothing but times say nothing and are left out.
pub fn listing(archive: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(header) = archive.get(at..at + BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let size = octal(&header[124..136]);
        let content = archive.get(at + BLOCK..at + BLOCK + size);
        at += BLOCK + size.div_ceil(BLOCK) * BLOCK;
        let kind = header[156];
        let Some(content) = content else {
            all.extend_from_slice(b"<a truncated entry>\n");
            return all;
        };
        if matches!(kind, b'x' | b'g') {
            let records = without_times(content);
            if !records.is_empty() {
                all.extend_from_slice(b"extended header: ");
                all.extend(records);
            }
            continue;
        }
        let text = |field: std::ops::Range<usize>| {
            let field = &header[field];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        all.extend_from_slice(
            format!(
                "{}{} kind {} mode {:o} uid {} gid {} size {size} link {:?} magic {:?} user {:?} group {:?}\n",
                text(345..500),
                text(0..100),
                char::from(kind),
                octal(&header[100..108]),
                octal(&header[108..116]),
                octal(&header[116..124]),
                text(157..257),
                String::from_utf8_lossy(&header[257..265]),
                text(265..297),
                text(297..329),
            )
            .as_bytes(),
        );
        all.extend_from_slice(content);
    }
    let rest = archive.get(at..).unwrap_or_default();
    let end = if rest.iter().any(|byte| *byte != 0) {
        "<and something else>"
    } else if archive.len().is_multiple_of(RECORD) && rest.len() >= 2 * BLOCK {
        "<end, filled up to a record>"
    } else {
        "<end, not filled up>"
    };
    all.extend_from_slice(end.as_bytes());
    all
}

fn octal(field: &[u8]) -> usize {
    let digits = field.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 8 + usize::from(digit - b'0'))
}

/// Records of an extended header (`length key=value\n`) other than times.
fn without_times(mut records: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !records.is_empty() {
        let digits = records.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let length =
            std::str::from_utf8(&records[..digits]).ok().and_then(|text| text.parse().ok());
        let Some(record) = length.and_then(|length: usize| records.get(..length.max(1))) else {
            all.extend_from_slice(records);
            break;
        };
        let body = record.get(digits + 1..).unwrap_or_default();
        if ![&b"mtime="[..], b"atime=", b"ctime="].iter().any(|key| body.starts_with(key)) {
            all.extend_from_slice(body);
        }
        records = &records[record.len()..];
    }
    all
}
