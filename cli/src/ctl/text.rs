//! Input on its way to a process: Garden's wire carries text.

/// Cuts a stream of bytes into pieces that end where a character does, so that no character is
/// torn apart by the boundary between two reads.
#[derive(Debug, Default)]
pub struct Whole {
    begun: Vec<u8>,
    /// Something was no text.
    pub torn: bool,
}

impl Whole {
    /// What can be sent of the bytes kept so far and these.
    pub fn add(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut piece = std::mem::take(&mut self.begun);
        piece.extend_from_slice(bytes);
        let last = piece.utf8_chunks().last();
        // An incomplete character at the very end may still be completed.
        let incomplete = last
            .map(|chunk| chunk.invalid())
            .filter(|invalid| matches!(std::str::from_utf8(invalid), Err(error) if error.error_len().is_none()))
            .map_or(0, <[u8]>::len);
        self.begun = piece.split_off(piece.len() - incomplete);
        self.torn |= std::str::from_utf8(&piece).is_err();
        piece
    }

    /// What is left at the end.
    pub fn end(self) -> Vec<u8> {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_survive_any_cut() {
        let text = "aü€😀\n".repeat(3);
        for size in 1..text.len() {
            let mut whole = Whole::default();
            let pieces: Vec<_> = text.as_bytes().chunks(size).map(|cut| whole.add(cut)).collect();
            assert!(pieces.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
            assert_eq!(pieces.concat(), text.as_bytes());
            assert!(!whole.torn && whole.end().is_empty());
        }
    }

    #[test]
    fn what_is_no_text_is_passed_on_and_noted() {
        let mut whole = Whole::default();
        assert_eq!(whole.add(b"a\xff\xe2\x82"), b"a\xff");
        assert!(whole.torn);
        assert_eq!(whole.add(b"b"), b"\xe2\x82b");
        assert_eq!(whole.add(b"\xe2"), b"");
        assert_eq!(whole.end(), b"\xe2");
    }
}
