//! The blocks of commands of a chapter of docs/operations.md, run as they stand there.

use std::{path::Path, process::Stdio};

use tokio::process::Command;

use super::{node::within, root};

/// A chapter with commands.
pub(crate) struct Runbook {
    blocks: std::vec::IntoIter<String>,
    variables: Vec<(&'static str, String)>,
}

impl Runbook {
    /// The chapter with this heading, whose commands use these variables.
    pub(crate) fn open(heading: &str, variables: &[(&'static str, String)]) -> Self {
        let page = std::fs::read_to_string(root().join("docs/operations.md")).expect("the page");
        let (_, rest) = page.split_once(&format!("\n#### {heading}\n")).expect("the chapter");
        let (mut blocks, mut block) = (Vec::new(), None::<String>);
        for line in rest.lines() {
            match &mut block {
                Some(_) if line == "```" => blocks.extend(block.take()),
                Some(block) => *block += &format!("{line}\n"),
                None if line == "```sh" => block = Some(String::new()),
                None if line.starts_with('#') => break,
                None => {}
            }
        }
        assert!(!blocks.is_empty(), "{heading} has no commands");
        Self { blocks: blocks.into_iter(), variables: variables.to_vec() }
    }

    /// Runs the next block: each of its commands must succeed. What it printed.
    pub(crate) async fn step(&mut self) -> String {
        let block = self.blocks.next().expect("another block");
        let program = Path::new(env!("CARGO_BIN_EXE_carillon")).parent().expect("a folder").to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths([program].into_iter().chain(std::env::split_paths(&path))).expect("a path");
        let mut shell = Command::new("bash");
        let shell = shell.args(["-euxo", "pipefail", "-c", &block]).env("PATH", path).stdin(Stdio::null());
        let shell = shell.envs(self.variables.iter().cloned()).kill_on_drop(true);
        let output = within(&block, shell.output()).await.expect("bash");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{block}\nprinted:\n{}", said.concat());
        said.concat()
    }

    /// Nothing of it is left.
    pub(crate) fn end(mut self) {
        assert_eq!(self.blocks.next(), None, "a block that was not run");
    }
}
