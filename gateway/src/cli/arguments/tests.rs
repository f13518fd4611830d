use clap::{CommandFactory as _, Parser as _};

use super::client::DeadLetters;
use super::{Arguments, Client, Command, Output, Server, Token};

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("tidegate").chain(line.split_whitespace()))
}

fn parsed(line: &str) -> Arguments {
    parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn table_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn accepted() {
    for line in [
        "dev",
        "dev --resources r --data d --backbone nats://h:4222 --http 127.0.0.1:0 --grpc [::1]:0 --ready-file f",
        "dev --http localhost:3501",
        "serve --config gateway.yaml",
        "serve --config gateway.yaml --resources r --backbone b --http 0.0.0.0:80 --grpc 0.0.0.0:81 --ready-file f",
        "publish orders",
        "publish orders --type t --source s --subject u --key k --id i --data {} --content-type application/json",
        "publish orders --data -1",
        "publish orders --file -",
        "tail orders --from earliest --limit 3 --partition 0",
        "topics list",
        "topics create orders --partitions 4",
        "subscriptions pause large --reason maintenance",
        "dead-letters redrive large",
        "dead-letters redrive large 0-1 0-2",
        "dead-letters drop large --all",
        "dead-letters drop large 0-1 0-2",
        "apps list",
        "apps show billing",
        "cluster",
        "cluster list",
        "cluster slots -o json",
        "cluster show --context staging",
        "bench",
        "bench load --rate 100 --duration 30s --concurrency 4 --size 100 --no-follow",
        "completion bash",
        "context list",
        "context show",
        "context add staging https://h --token-variable T",
        "context add staging h:1 --token-file f",
        "context use staging",
        "context remove staging",
        "doctor",
        "doctor --config gateway.yaml",
        "log-level",
        "log-level warn,tidegate=debug",
        "log-level --reset",
        "check a.yaml b",
    ] {
        parsed(line);
    }
}

#[test]
fn refused() {
    for line in [
        "",
        "nonsense",
        "dev --http 3500",
        "dev --grpc example.com:50001",
        "serve",
        "publish",
        "publish orders --data 1 --file x.json",
        "publish orders --id 1 --file x.json",
        "tail orders --limit 0",
        "topics create orders --partitions 0",
        "dead-letters drop large",
        "dead-letters drop large 0-1 --all",
        "check",
        "bench --rate 0",
        "bench --size 0",
        "bench --duration 30",
        "bench --duration 30s --events 7",
        "completion tcsh",
        "context add staging",
        "context add staging ftp://h",
        "context add staging h --token-stdin --token-file f",
        "log-level info --reset",
        "topics list -o yaml",
        "topics list --server ftp://h",
        "topics list --server http://user:secret@h",
        "topics list --server http://h/?a=b",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn globals_before_and_after_the_command() {
    for line in ["-o json --server http://h:1 --token t topics list", "topics list -o json --server h:1 --token t"] {
        let globals = parsed(line).globals;
        assert_eq!(globals.output, Output::Json);
        assert_eq!(globals.server().to_string(), "http://h:1");
        assert_eq!(globals.token.unwrap().authorization(), "Bearer t");
    }
    let command = Arguments::command();
    let server = command.get_arguments().find(|argument| argument.get_id() == "server").unwrap();
    assert_eq!(parsed("topics list").globals.server().to_string(), Server::DEFAULT);
    assert_eq!(server.get_env().unwrap(), "TIDEGATE_SERVER");
}

#[test]
fn servers_are_joined_with_paths() {
    let join = |server: &str| server.parse::<Server>().unwrap().join("/topics?a=b").unwrap().to_string();
    assert_eq!(join("127.0.0.1:3500"), "http://127.0.0.1:3500/topics?a=b");
    assert_eq!(join("https://h/mesh/"), "https://h/mesh/topics?a=b");
}

#[test]
fn tokens_are_not_shown() {
    let token: Token = "secret".parse().unwrap();
    assert!(!format!("{token:?}{:?}", token.authorization()).contains("secret"));
    for bad in ["", "a b", "a\nb", "é"] {
        assert!(bad.parse::<Token>().is_err(), "{bad:?}");
    }
}

#[test]
fn named_dead_letters_and_all_are_told_apart() {
    let Command::Client(Client::DeadLetters(DeadLetters::Drop { ids, all, .. })) =
        parsed("dead-letters drop large 0-1 1-2").command
    else {
        panic!("another command");
    };
    assert_eq!((ids, all), (vec!["0-1".to_owned(), "1-2".to_owned()], false));
}

#[test]
fn shells_complete_every_command() {
    let commands: Vec<String> =
        Arguments::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    assert!(commands.len() > 10, "{commands:?}");
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        crate::cli::write_completion(shell, &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in commands.iter().map(String::as_str).chain(["redrive", "--context", "--token-variable"]) {
            let word = command.trim_start_matches('-');
            assert!(script.contains(word), "{shell} does not complete {command}");
        }
    }
}
