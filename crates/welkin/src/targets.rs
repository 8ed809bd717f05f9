//! The same call for several targets at once.

use std::collections::BTreeSet;

use client::{CallError, Client};
use tokio::task::JoinSet;
use wire::call::Call;

use crate::context::Context;
use crate::failure::{EXIT_FAILED, Failure};
use crate::{output, progress};

/// Makes the call for each target, all at once, and shows what came of it in the order in which
/// the targets were given, each once. Fails when any failed, but only after all were tried.
pub(crate) async fn each<C>(
    context: &Context,
    doing: &str,
    targets: &[String],
    request: impl Fn(&str) -> C,
    mut show: impl FnMut(&str, C::Response) -> Result<(), Failure>,
) -> Result<u8, Failure>
where
    C: Call + Send + 'static,
    C::Response: Send + 'static,
{
    let mut known = BTreeSet::new();
    let targets: Vec<&String> = targets.iter().filter(|it| known.insert(*it)).collect();
    let answers = all(&context.client, &targets, request);
    let mut answers = progress::shown(context.screen, doing, answers).await;
    // One target fails as a whole, with its own exit code.
    if let ([_], [Some(Err(_))]) = (targets.as_slice(), answers.as_slice())
        && let Some(Some(Err(error))) = answers.pop()
    {
        return Err(error.into());
    }
    let mut exit = 0;
    for (target, answer) in targets.iter().zip(answers) {
        match answer {
            Some(Ok(answer)) => show(target, answer)?,
            Some(Err(error)) => {
                output::failure(context.screen, &error.into());
                exit = EXIT_FAILED;
            }
            None => exit = EXIT_FAILED,
        }
    }
    Ok(exit)
}

async fn all<C>(
    client: &Client,
    targets: &[&String],
    request: impl Fn(&str) -> C,
) -> Vec<Option<Result<C::Response, CallError>>>
where
    C: Call + Send + 'static,
    C::Response: Send + 'static,
{
    let mut calls = JoinSet::new();
    for (place, target) in targets.iter().enumerate() {
        let (client, request) = (client.clone(), request(target));
        calls.spawn(async move { (place, client.call(request).await) });
    }
    let mut answers: Vec<_> = targets.iter().map(|_| None).collect();
    while let Some(done) = calls.join_next().await {
        if let Ok((place, answer)) = done
            && let Some(slot) = answers.get_mut(place)
        {
            *slot = Some(answer);
        }
    }
    answers
}
