//! Rayon threads for the numeric work of a build. They never call PostgreSQL: the backend's thread hands out owned data
//! and waits, answering interrupts meanwhile.

use crate::pg::memory::{check_for_interrupts, is_to_be_had};
use pgrx::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// A pool for one build. Its threads end when it is dropped.
pub struct Pool {
    pool: rayon::ThreadPool,
    cancelled: Arc<AtomicBool>,
}

impl Pool {
    /// As many threads as `max_parallel_maintenance_workers` + 1 and the machine allow.
    pub fn new() -> Pool {
        // SAFETY: a plain setting of the backend.
        let allowed = unsafe { pg_sys::max_parallel_maintenance_workers } as usize + 1;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut threads = allowed.min(cores).max(1);
        // With fewer threads where there is no room for all.
        let pool = loop {
            match start_threads(threads) {
                Ok(pool) => break pool,
                Err(_) if threads > 1 => threads /= 2,
                Err(reason) => {
                    ereport!(
                        ERROR,
                        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
                        format!("could not start a thread for the index build: {reason}")
                    );
                }
            }
        };
        Pool { pool, cancelled: Arc::new(AtomicBool::new(false)) }
    }

    /// Starts `job` on the pool. It is told by its argument when the build has been cancelled.
    pub fn start<T: Send + 'static>(&self, job: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Pending<T> {
        let (sender, receiver) = sync_channel(1);
        let cancelled = self.cancelled.clone();
        self.pool.spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&cancelled)));
            // No receiver: the build has ended with an error.
            let _ = sender.send(result);
        });
        Pending { receiver }
    }

    /// Runs `job` on the pool to its end.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> T {
        self.start(job).wait()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Jobs that still run after an ERROR end soon and touch only what they own.
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Bytes that a thread needs before it does anything: its stack (the size is std's), and what the C library keeps for it.
const THREAD_BYTES: usize = (2 << 20) + (512 << 10);

fn start_threads(threads: usize) -> Result<rayon::ThreadPool, String> {
    // The C library ends the process where it has no memory for a thread that has just begun.
    if !is_to_be_had(threads * THREAD_BYTES) {
        return Err("out of memory".to_string());
    }
    let pool = with_signals_blocked(|| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("ivflsh {i}")).build()
    });
    let pool = pool.map_err(|e| e.to_string())?;
    // All have begun, and have what they need.
    let (sender, receiver) = sync_channel(threads);
    pool.spawn_broadcast(move |_| {
        let _ = sender.send(());
    });
    (0..threads).for_each(|_| receive(&receiver));
    Ok(pool)
}

/// The result of a job, to come.
pub struct Pending<T> {
    receiver: Receiver<std::thread::Result<T>>,
}

impl<T> Pending<T> {
    /// Waits for the job, answering interrupts.
    pub fn wait(self) -> T {
        receive(&self.receiver).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Waits for what a thread sends, answering interrupts.
fn receive<T>(receiver: &Receiver<T>) -> T {
    loop {
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Ok(value) => return value,
            Err(RecvTimeoutError::Timeout) => check_for_interrupts(),
            Err(RecvTimeoutError::Disconnected) => {
                ereport!(ERROR, PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a thread of the index build was lost");
            }
        }
    }
}

/// Gives memory that the threads have freed back to the system, where the C library would keep it for them.
pub fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Threads inherit the signal mask: PostgreSQL's handlers must only run on the backend's own thread.
fn with_signals_blocked<T>(make: impl FnOnce() -> T) -> T {
    // SAFETY: plain POSIX calls on local sets; the old mask is restored.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let made = make();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        made
    }
}
