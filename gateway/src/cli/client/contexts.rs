//! `context`: list, show, add, use and remove contexts. Nothing here speaks to a gateway.

use serde_json::json;
use tidegate_resources::process_variable;

use super::console::Console;
use super::failure::Failure;
use super::table::Table;
use super::text::printable;
use crate::cli::arguments::{Contexts as Command, Globals, Output, Server};
use crate::cli::contexts::{self, Entry, Store, TokenSource};

/// Carries out `context`.
pub(super) async fn run(console: &mut Console, globals: &Globals, command: &Command) -> Result<(), Failure> {
    let path = contexts::path(globals, &process_variable).map_err(Failure::Local)?;
    let mut store = Store::open(path).map_err(Failure::Local)?;
    let wants_json = globals.output == Output::Json;
    match command {
        Command::List => list(console, &store, wants_json),
        Command::Show { name } => {
            let name = name.clone().or_else(|| globals.context.clone()).or_else(|| store.contexts.current.clone());
            let name = name.ok_or_else(|| Failure::Usage(no_context()))?;
            show(console, &store, &name, wants_json)
        }
        Command::Add { name, url: server, token_variable, token_file, token_stdin } => {
            check_name(name)?;
            if store.contexts.contexts.contains_key(name) {
                let advice = format!("change it by removing it first: tidegate context remove {name}");
                return Err(Failure::Local(format!("there is a context {name:?} already; {advice}")));
            }
            let token = if let Some(variable) = token_variable {
                Some(TokenSource::Variable(variable.clone()))
            } else if let Some(file) = token_file {
                Some(TokenSource::File(std::path::absolute(file).unwrap_or_else(|_| file.clone())))
            } else if *token_stdin {
                Some(TokenSource::Value(read_token(console).await?))
            } else {
                None
            };
            add(console, &mut store, name, server, token)
        }
        Command::Use { name } => {
            find(&store, name)?;
            store.contexts.current = Some(name.clone());
            store.write().map_err(Failure::Local)?;
            console.line(&format!("commands now speak to the context {}", printable(name)))
        }
        Command::Remove { name } => {
            find(&store, name)?;
            store.contexts.contexts.remove(name);
            let was_current = store.contexts.current.as_deref() == Some(name);
            store.contexts.current = store.contexts.current.take().filter(|_| !was_current);
            store.write().map_err(Failure::Local)?;
            console.line(&format!("removed the context {}", printable(name)))?;
            if was_current {
                console.hint(&format!("no context is current now; commands speak to {}", Server::DEFAULT));
            }
            Ok(())
        }
    }
}

fn no_context() -> String {
    "no context is current; name one, or choose one with: tidegate context use NAME".to_owned()
}

fn find<'a>(store: &'a Store, name: &str) -> Result<&'a Entry, Failure> {
    store.entry(name).map_err(Failure::Local)
}

/// A name that can be typed without quotes.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if !name.is_empty() && !name.starts_with('-') && name.len() <= 64 && name.chars().all(fits) {
        return Ok(());
    }
    Err(Failure::Usage("the name of a context has up to 64 letters, digits, dots, - and _".to_owned()))
}

async fn read_token(console: &mut Console) -> Result<String, Failure> {
    use tokio::io::AsyncReadExt as _;
    /// Longer than any token that a server takes in a header.
    const TOKEN_BYTES: u64 = 16 * 1024;
    let input = console.input.take().ok_or_else(|| Failure::Usage("there is no standard input to read".to_owned()))?;
    let mut text = String::new();
    let read = input.take(TOKEN_BYTES).read_to_string(&mut text).await;
    read.map_err(|error| Failure::Local(format!("the token cannot be read from standard input: {error}")))?;
    let token = text.trim();
    token.parse::<crate::cli::Token>().map_err(|error| Failure::Usage(format!("on standard input: {error}")))?;
    Ok(token.to_owned())
}

fn add(
    console: &mut Console,
    store: &mut Store,
    name: &str,
    server: &Server,
    token: Option<TokenSource>,
) -> Result<(), Failure> {
    store.contexts.contexts.insert(name.to_owned(), Entry { server: server.clone(), token });
    // The first one is what somebody means who adds it.
    let first = store.contexts.contexts.len() == 1;
    if first {
        store.contexts.current = Some(name.to_owned());
    }
    store.write().map_err(Failure::Local)?;
    let current = if first { ", and made it the current one" } else { "" };
    console.line(&format!("added the context {}{current}", printable(name)))?;
    if !first {
        console.hint(&format!("next: tidegate context use {}", printable(name)));
    }
    Ok(())
}

fn list(console: &mut Console, store: &Store, wants_json: bool) -> Result<(), Failure> {
    let current = store.contexts.current.as_deref();
    if wants_json {
        for (name, entry) in &store.contexts.contexts {
            console.line(&document(name, entry, current).to_string())?;
        }
        return Ok(());
    }
    if store.contexts.contexts.is_empty() {
        console.note("there are no contexts");
        console.hint("next: tidegate context add NAME URL");
        return Ok(());
    }
    let mut table = Table::new(&["CURRENT", "NAME", "SERVER", "TOKEN"]);
    for (name, entry) in &store.contexts.contexts {
        table.push(vec![
            if current == Some(name) { "*".to_owned() } else { String::new() },
            printable(name).into_owned(),
            printable(&entry.server.to_string()).into_owned(),
            token(entry),
        ]);
    }
    console.table(&table.lines())
}

fn show(console: &mut Console, store: &Store, name: &str, wants_json: bool) -> Result<(), Failure> {
    let entry = find(store, name)?;
    let current = store.contexts.current.as_deref();
    if wants_json {
        return console.line(&document(name, entry, current).to_string());
    }
    for (label, value) in [
        ("name", printable(name).into_owned()),
        ("server", printable(&entry.server.to_string()).into_owned()),
        ("token", token(entry)),
        ("current", if current == Some(name) { "yes" } else { "no" }.to_owned()),
        ("file", store.path.display().to_string()),
    ] {
        console.line(&format!("{label:<8} {value}"))?;
    }
    Ok(())
}

fn token(entry: &Entry) -> String {
    entry.token.as_ref().map_or_else(|| "-".to_owned(), |source| printable(&source.told()).into_owned())
}

/// A context as a document: where its token is, never what it is.
fn document(name: &str, entry: &Entry, current: Option<&str>) -> serde_json::Value {
    let token = match &entry.token {
        None => serde_json::Value::Null,
        Some(TokenSource::Variable(name)) => json!({ "variable": name }),
        Some(TokenSource::File(path)) => json!({ "file": path }),
        Some(TokenSource::Value(_)) => json!({ "kept": true }),
    };
    json!({ "name": name, "server": entry.server.to_string(), "token": token, "current": current == Some(name) })
}
