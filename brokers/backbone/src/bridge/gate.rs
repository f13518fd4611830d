//! Where appends to the backbone's own topics go: to it, nowhere for a moment, or to the backbone that it was moved to.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::log::{Appended, BoxFuture, LogId, PartitionLog, Record};
use crate::outstanding::Outstanding;

/// When a publisher may try again whose event had no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where the backbone's own topics are.
#[derive(Clone, Debug)]
pub enum Course {
    /// On the backbone.
    Home,
    /// On the backbone; appends wait until it is known where they go.
    Held,
    /// On another one, under the same names and partitions.
    Diverted(Arc<dyn PartitionLog>),
    /// On another one that this process does not reach, for that reason.
    Gone(Arc<str>),
}

type Answer = BoxFuture<'static, Result<Appended>>;

struct Waiting {
    id: LogId,
    record: Record,
    began: oneshot::Sender<Answer>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Waiting").field("id", &self.id).finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    course: RwLock<Course>,
    /// Appends that wait, in the order in which they were asked for.
    held: Mutex<VecDeque<Waiting>>,
    /// Appends to the backbone that are not answered.
    out: Arc<Outstanding>,
}

/// One append that is out.
struct Pass(Arc<Outstanding>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self { course: RwLock::new(Course::Home), held: Mutex::default(), out: Arc::default() }
    }
}

impl Gate {
    /// Where the backbone's topics are now.
    pub(super) fn course(&self) -> Course {
        self.course.read().clone()
    }

    /// Appends to a topic of the backbone, wherever that is.
    pub(super) fn append(&self, home: &dyn PartitionLog, id: &LogId, record: Record) -> Answer {
        // Held while the append is queued: whoever changes the course finds every append before or behind the change.
        let course = self.course.read();
        match &*course {
            Course::Held => self.hold(id, record),
            course => self.begin(course, home, id, record),
        }
    }

    fn begin(&self, course: &Course, home: &dyn PartitionLog, id: &LogId, record: Record) -> Answer {
        match course {
            Course::Home | Course::Held => {
                self.out.begin();
                let pass = Pass(Arc::clone(&self.out));
                let appended = home.append(id, record);
                Box::pin(async move {
                    let _pass = pass;
                    appended.await
                })
            }
            Course::Diverted(log) => log.append(id, record),
            Course::Gone(reason) => {
                Box::pin(std::future::ready(Err(Error::new(ErrorKind::Unavailable, reason.to_string()))))
            }
        }
    }

    fn hold(&self, id: &LogId, record: Record) -> Answer {
        let mut held = self.held.lock();
        if held.len() >= limits::MIGRATION_HELD_EVENTS {
            let kind = ErrorKind::Backpressure { retry_after: RETRY_AFTER };
            let context = format!("{} events wait for the backbone to be moved", held.len());
            return Box::pin(std::future::ready(Err(Error::new(kind, context))));
        }
        let (began, begins) = oneshot::channel::<Answer>();
        held.push_back(Waiting { id: id.clone(), record, began });
        Box::pin(async move {
            match begins.await {
                Ok(appended) => appended.await,
                Err(_) => Err(Error::new(ErrorKind::Closed, "the process stopped before an append was begun")),
            }
        })
    }

    /// Changes where the topics are. What waited is appended there first, in its order.
    pub(super) fn set(&self, home: &dyn PartitionLog, to: Course) {
        let mut course = self.course.write();
        if !matches!(to, Course::Held) {
            for Waiting { id, record, began } in self.held.lock().drain(..) {
                // Whoever gave up waiting does not know what became of it, which is either.
                drop(began.send(self.begin(&to, home, &id, record)));
            }
        }
        *course = to;
    }

    /// Waits until every append to the backbone was answered that was begun before.
    pub(super) async fn answered(&self) {
        self.out.ended().await;
    }
}
