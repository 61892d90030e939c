//! The receive queue of a socket: messages in order, each with its ancillary data.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use libos_core::file::OpenFile;

use crate::name::Name;

/// One send.
pub struct Message {
    /// Bytes.
    pub data: Vec<u8>,
    /// How many of them a stream's reader has taken.
    pub taken: usize,
    /// Files that travel with the first byte.
    pub files: Vec<Arc<OpenFile>>,
    /// Process, user and group of the sender.
    pub credentials: (i32, u32, u32),
    /// The sender's name.
    pub from: Name,
}

impl Message {
    /// Bytes not yet taken.
    pub fn rest(&self) -> &[u8] {
        &self.data[self.taken..]
    }
}

/// Messages waiting to be received, up to a limit in bytes.
pub struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
}

/// What Linux charges a message for besides its bytes, roughly (`sk_buff`): an endless row of empty messages must fill the queue too.
const OVERHEAD: usize = 256;

impl Queue {
    /// Returns an empty queue.
    pub const fn new() -> Queue {
        Queue { messages: VecDeque::new(), bytes: 0 }
    }

    /// Room in bytes below a limit.
    pub fn room(&self, limit: usize) -> usize {
        limit.saturating_sub(self.bytes)
    }

    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.bytes += message.data.len() + OVERHEAD;
        self.messages.push_back(message);
    }

    /// The next message.
    pub fn front(&self) -> Option<&Message> {
        self.messages.front()
    }

    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter()
    }

    /// Removes the next message.
    pub fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.data.len() + OVERHEAD;
        Some(message)
    }

    /// Marks bytes of the next message as taken, and takes its files; removes it once it is used up.
    pub fn take(&mut self, count: usize) -> Vec<Arc<OpenFile>> {
        let Some(front) = self.messages.front_mut() else { return Vec::new() };
        front.taken += count;
        let files = core::mem::take(&mut front.files);
        if front.taken >= front.data.len() {
            self.pop();
        }
        files
    }

    /// Bytes waiting.
    pub fn unread_bytes(&self) -> usize {
        self.messages.iter().map(|m| m.rest().len()).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Removes everything; the caller drops it outside any lock, since files may be closed by that.
    pub fn drain(&mut self) -> VecDeque<Message> {
        self.bytes = 0;
        core::mem::take(&mut self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: &[u8]) -> Message {
        Message { data: data.to_vec(), taken: 0, files: vec![], credentials: (1, 0, 0), from: Name::Unnamed }
    }

    #[test]
    fn a_stream_takes_messages_apart() {
        let mut queue = Queue::new();
        queue.push(message(b"hello"));
        queue.push(message(b"x"));
        queue.take(2);
        assert_eq!(queue.front().map(|m| m.rest().to_vec()), Some(b"llo".to_vec()));
        assert_eq!(queue.unread_bytes(), 4);
        queue.take(3);
        queue.take(1);
        assert!(queue.is_empty());
        assert_eq!(queue.room(1000), 1000);
    }

    #[test]
    fn empty_messages_use_room() {
        let mut queue = Queue::new();
        let before = queue.room(10_000);
        queue.push(message(b""));
        assert!(queue.room(10_000) < before);
        queue.pop();
        assert_eq!(queue.room(10_000), before);
    }
}
