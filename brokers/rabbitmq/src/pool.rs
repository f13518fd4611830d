//! Channels for questions, which are kept open from one to the next: a channel that is opened for one question alone makes the
//! broker's coordinator of streams write down who asks and that he has gone, besides what the question itself costs there.

use lapin::Channel;
use parking_lot::Mutex;
use tidegate_backbone::Result;
use tidegate_schemas::limits;

use crate::connection::Link;

/// A channel that is asked on, and the connection that it belongs to.
pub(crate) struct Asked {
    pub(crate) channel: Channel,
    generation: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Asked>>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Pool").field(&self.0.lock().len()).finish()
    }
}

impl Pool {
    /// A channel on which nobody else asks.
    pub(crate) async fn take(&self, link: &Link, action: &str) -> Result<Asked> {
        let open = link.require(action)?;
        let kept = {
            let mut kept = self.0.lock();
            // Those of a connection that was lost are of no use, and neither is one on which something was refused.
            kept.retain(|asked| asked.generation == open.generation && asked.channel.status().connected());
            kept.pop()
        };
        match kept {
            Some(asked) => Ok(asked),
            None => Ok(Asked { channel: open.channel(action).await?, generation: open.generation }),
        }
    }

    /// Keeps a channel on which nothing is under way any more for the next question.
    pub(crate) fn give_back(&self, asked: Asked) {
        let mut kept = self.0.lock();
        if kept.len() < limits::RABBITMQ_QUESTION_CHANNELS {
            kept.push(asked);
        }
    }
}
