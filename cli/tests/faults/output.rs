//! What a process writes, and what of it its clients get, one daemon after the other.

use bloomery_garden::client::RunningProcess;
use tokio::io::AsyncReadExt;

/// A process's output: lines of which no two are the same, so that every piece has one place.
#[derive(Debug)]
pub struct Written {
    text: String,
    /// Where the last client's share ended.
    heard_to: usize,
    /// No client has been lost so far, with what a daemon had read for it.
    whole: bool,
}

impl Written {
    /// A script that writes so many lines at various speeds, and the text of these.
    pub fn by_script(lines: u64) -> (String, Self) {
        let script = format!(
            "i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); \
             [ $((i % 16)) != 0 ] || sleep 0.005; done"
        );
        let text = (0..lines).map(|line| format!("line {line}\n")).collect();
        (script, Self { text, heard_to: 0, whole: true })
    }

    /// Bytes of all of it.
    pub fn length(&self) -> usize {
        self.text.len()
    }

    /// The daemon was killed before a client could get all of its share, or any.
    pub fn cut(&mut self, share: &str) -> Result<usize, String> {
        let lost = self.hear(share, self.text[self.heard_to..].find(share))?;
        self.whole = false;
        Ok(lost)
    }

    /// A client got its share to the end.
    pub fn ended(&mut self, share: &str) -> Result<usize, String> {
        let rest = &self.text[self.heard_to..];
        let lost = self.hear(share, rest.ends_with(share).then(|| rest.len() - share.len()))?;
        Ok(lost)
    }

    /// The next client's share begins so many bytes behind the last one's; they are lost, which only
    /// a daemon's death allows.
    fn hear(&mut self, share: &str, behind: Option<usize>) -> Result<usize, String> {
        match behind {
            Some(lost) if lost == 0 || !self.whole => {
                self.heard_to += lost + share.len();
                Ok(lost)
            }
            _ => Err(format!(
                "{share:?} does not follow byte {} of {:?}{}",
                self.heard_to,
                self.text,
                if self.whole { ", and no daemon has died" } else { "" }
            )),
        }
    }
}

/// All that a client gets of a process's stdout, to its end or the daemon's. Called before the process is
/// waited for, which discards what nobody has taken.
pub fn share_of(process: &RunningProcess) -> impl Future<Output = String> + use<> {
    let output = process.take_stdout();
    async move {
        let mut share = Vec::new();
        if let Some(mut output) = output {
            // What came before the connection broke counts.
            let _ = output.read_to_end(&mut share).await;
        }
        String::from_utf8(share).unwrap()
    }
}

#[test]
fn a_share_that_is_out_of_place_is_found() {
    let written = || Written::by_script(5).1;
    assert_eq!(written().ended("line 0\nline 1\nline 2\nline 3\nline 4\n"), Ok(0));
    for wrong in ["", "line 0\n", "line 1\nline 2\nline 3\nline 4\n", "line 1\nline 0\n"] {
        assert!(written().ended(wrong).is_err(), "{wrong:?}");
    }
    let mut cut = written();
    assert_eq!((cut.cut("line 0\nli"), cut.cut("line 3\n")), (Ok(0), Ok(12)));
    assert_eq!(cut.ended("line 4\n"), Ok(0));
    let mut twice = written();
    twice.cut("line 0\nline 1\n").unwrap();
    assert!(twice.ended("line 1\nline 2\nline 3\nline 4\n").is_err());
    let mut gap = written();
    gap.cut("line 0\n").unwrap();
    assert!(gap.cut("line 2\nline 4\n").is_err());
}
