// Package wal keeps on disk what a node must remember across a crash: Log is a coterie.Journal in a folder of segment
// files, whose streams let many journals share one file and one sync, and Snapshots is a folder for state too big for
// a journal.
//
// Use it for whatever runs on transport/host or consensus, one Log a process and one stream for each protocol in it,
// or by itself wherever an append must be durable on return. It is no database: records are found again only by
// replaying a stream from its oldest, and let go only from there.
//
// # Guarantees
//
//   - What Append has returned nil for is there after a crash of the process or the machine, unless Keep let it go.
//     Of an append that did not return, some of its first records may be there, and are then durable.
//   - Replay gives one stream's records in the order of their appends, none changed, left out or given twice. After
//     a restart it may begin before what Keep asked for.
//   - Appends made at the same time, through any streams, share one write and one sync (group commit).
//   - The end of a batch that a crash tore is cut off, which Recovery reports. Bytes that were durable and are not as
//     they were written are a *CorruptionError, and nothing is dropped. The two are told apart by marks: each batch
//     begins with one that says that all before it was durable, the start of a segment says so of the one before, and
//     Close leaves a mark. So only damage to the very last batch of a log that was not closed, and to nothing else, is
//     taken for a torn one.
//   - After a failed write or sync nothing more is acknowledged (ErrPoisoned). Open writes the last batch again before
//     it shows it, since a system may have forgotten that it is not on the disk (Rebello et al., "Can Applications
//     Recover from fsync Failures?", USENIX ATC 2020).
//   - Open takes a lock, and refuses the log of another node (*OwnerError).
//
// Fault model: crashes of process and machine at any moment, with any subset of the unsynced sectors of 512 bytes or
// more on the disk and any subset of the unsynced names in the folder; failing and short writes, failing syncs; bit
// rot. Sectors that are written again with what they held, as the first of a batch is, are taken to hold it whatever
// happens. It does not defend against a disk that lies about a sync, nor against one that returns wholly to an
// earlier state: such a node has forgotten promises and must be replaced.
//
// # Space
//
// Segments go oldest first, when no stream needs them; none is rewritten. A stream that keeps little and goes quiet
// would hold all that came after it, so once the log is over twice as big as what its streams need, and two segments
// more, the records of the streams in the oldest segment are said again at the head, if they are at most a quarter of
// a segment together. A stream that keeps more than that and never lets go holds everything behind it.
//
// Replaying a stream reads each segment in which it has records. Streams that are always used together replay
// fastest as one.
//
// Peers of its kind, measured beside it in benchmarks: github.com/tidwall/wal, github.com/hashicorp/raft-wal.
package wal
