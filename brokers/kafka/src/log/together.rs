//! Questions of many that the broker is asked together: what is asked while a question is under way goes into the next one.
//! A request to the broker costs about the same for one topic as for many, and requests of one client come one after the
//! other in any case.

use std::fmt;

use parking_lot::Mutex;
use tidegate_backbone::Result;
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use crate::error::busy;

/// Questions that wait, each with where its answer goes.
type Waiting<Q, A> = Vec<(Q, oneshot::Sender<A>)>;

/// See the module. At most [`limits::KAFKA_CALLS`] questions wait.
pub(crate) struct Together<Q, A> {
    what: &'static str,
    /// Questions that one request may hold.
    most: usize,
    waiting: Mutex<Waiting<Q, A>>,
    turn: tokio::sync::Mutex<()>,
}

impl<Q, A> fmt::Debug for Together<Q, A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Together").field("what", &self.what).finish_non_exhaustive()
    }
}

impl<Q: Clone, A> Together<Q, A> {
    /// `what` is asked, as errors call it; `most` questions at a time.
    pub(crate) fn new(what: &'static str, most: usize) -> Self {
        Self { what, most, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The answer to a question. `request` asks the broker many, and answers each, in their order. Whoever has the turn asks
    /// for everybody; where that one is dropped while it asks, the others ask again, so a question must bear that.
    pub(crate) async fn ask<F: Future<Output = Vec<A>>>(
        &self,
        question: Q,
        request: impl Fn(Vec<Q>) -> F,
    ) -> Result<A> {
        let mut answer = self.wait(&question)?;
        loop {
            tokio::select! {
                biased;
                told = &mut answer => match told {
                    Ok(told) => return Ok(told),
                    Err(_) => answer = self.wait(&question)?,
                },
                _turn = self.turn.lock() => {
                    // Answered while this waited for its turn.
                    if let Ok(told) = answer.try_recv() {
                        return Ok(told);
                    }
                    let (questions, senders): (Vec<Q>, Vec<_>) = self.next().into_iter().unzip();
                    for (sender, told) in senders.into_iter().zip(request(questions).await) {
                        // Whoever asked may be gone.
                        let _ = sender.send(told);
                    }
                }
            }
        }
    }

    fn wait(&self, question: &Q) -> Result<oneshot::Receiver<A>> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= limits::KAFKA_CALLS {
            return Err(busy(self.what));
        }
        waiting.push((question.clone(), sender));
        Ok(answer)
    }

    /// The next questions, the first ones first; those left out that nobody waits for any more.
    fn next(&self) -> Waiting<Q, A> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|(_, sender)| !sender.is_closed());
        let count = waiting.len().min(self.most);
        waiting.drain(..count).collect()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests have no environment")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    /// A broker that answers when it is let, and remembers what it was asked.
    struct Broker {
        lets: Semaphore,
        asked: Mutex<Vec<Vec<u32>>>,
    }

    impl Broker {
        fn new() -> Arc<Self> {
            Arc::new(Self { lets: Semaphore::new(0), asked: Mutex::default() })
        }

        async fn request(&self, questions: Vec<u32>) -> Vec<u32> {
            self.asked.lock().push(questions.clone());
            self.lets.acquire().await.unwrap().forget();
            questions.iter().map(|question| question * 10).collect()
        }
    }

    fn asks(
        together: &Arc<Together<u32, u32>>,
        broker: &Arc<Broker>,
        question: u32,
    ) -> tokio::task::JoinHandle<Result<u32>> {
        let (together, broker) = (Arc::clone(together), Arc::clone(broker));
        tokio::spawn(async move { together.ask(question, |questions| broker.request(questions)).await })
    }

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn what_waits_is_asked_together_and_no_more_of_it_than_fits() {
        let (together, broker) = (Arc::new(Together::new("questions", 3)), Broker::new());
        let first = asks(&together, &broker, 1);
        until(|| broker.asked.lock().len() == 1).await;
        let mut others = Vec::new();
        for question in 2..=6 {
            others.push(asks(&together, &broker, question));
            until(|| together.waiting.lock().len() == others.len()).await;
        }
        broker.lets.add_permits(3);
        assert_eq!(first.await.unwrap().unwrap(), 10);
        for (question, other) in (2..).zip(others) {
            assert_eq!(other.await.unwrap().unwrap(), question * 10, "each is given its own answer");
        }
        assert_eq!(*broker.asked.lock(), [vec![1], vec![2, 3, 4], vec![5, 6]]);
    }

    #[tokio::test]
    async fn who_waits_goes_on_where_the_one_that_asks_is_gone() {
        let (together, broker) = (Arc::new(Together::new("questions", 3)), Broker::new());
        let first = asks(&together, &broker, 1);
        until(|| broker.asked.lock().len() == 1).await;
        let (gone, second) = (asks(&together, &broker, 2), asks(&together, &broker, 3));
        until(|| together.waiting.lock().len() == 2).await;
        gone.abort();
        first.abort();
        until(|| broker.asked.lock().len() == 2).await;
        broker.lets.add_permits(1);
        assert_eq!(second.await.unwrap().unwrap(), 30);
        assert_eq!(*broker.asked.lock(), [vec![1], vec![3]], "nobody waits for what was asked by those that are gone");
    }

    #[tokio::test]
    async fn who_is_asked_for_asks_again_where_the_one_that_asks_is_gone() {
        let (together, broker) = (Arc::new(Together::new("questions", 3)), Broker::new());
        let turn = together.turn.lock().await;
        let first = asks(&together, &broker, 1);
        until(|| together.waiting.lock().len() == 1).await;
        let second = asks(&together, &broker, 2);
        until(|| together.waiting.lock().len() == 2).await;
        drop(turn);
        until(|| broker.asked.lock().len() == 1).await;
        first.abort();
        until(|| broker.asked.lock().len() == 2).await;
        broker.lets.add_permits(1);
        assert_eq!(second.await.unwrap().unwrap(), 20);
        assert_eq!(*broker.asked.lock(), [vec![1, 2], vec![2]]);
    }
}
