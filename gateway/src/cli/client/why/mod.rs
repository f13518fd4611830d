//! `why`: what became of an event, as a picture.

mod document;
mod picture;
mod time;

use http::Method;
use serde_json::value::RawValue;

use super::api::Call;
use super::failure::Failure;
use super::{Context, json as documents};
use crate::cli::arguments::Why;
use document::Passport;
use picture::View;

/// Carries out `why`.
pub(super) async fn run(context: &mut Context<'_>, arguments: &Why) -> Result<(), Failure> {
    let mut call = Call::new(Method::GET, &["passports"]).query("id", &arguments.id);
    if let Some(source) = &arguments.source {
        call = call.query("source", source);
    }
    if arguments.data {
        call = call.query("data", "true");
    }
    let answer = context.api.call(call).await?;
    if context.wants_json() {
        let passports: Vec<Box<RawValue>> = documents::read(&answer.body)?;
        return passports.iter().try_for_each(|each| context.console.line(&documents::one_line(each.get())));
    }
    let passports: Vec<Passport> = documents::read(&answer.body)?;
    let server = context.server_option();
    for (index, passport) in passports.iter().enumerate() {
        if index > 0 {
            context.console.line("")?;
        }
        let console = &context.console;
        let view = View {
            symbols: console.out_symbols,
            width: console.out_width,
            now: context.environment.clock.unix_milliseconds(),
            server: &server,
            paint: &|style, text| console.styled(style, text),
        };
        for line in picture::lines(passport, &view) {
            context.console.line(&line)?;
        }
    }
    if let Some(searched) = passports.iter().map(|passport| &passport.searched).find(|searched| !searched.complete) {
        context.console.note(&format!(
            "not everything since {} could be searched: the index is being read anew, or a part is damaged; ask again in a while",
            super::text::printable(&searched.back_to)
        ));
    }
    if passports.iter().any(|passport| passport.searched.more) {
        context.console.note("there is more than is shown; name the source with --source");
    }
    Ok(())
}
