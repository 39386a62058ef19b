// Package wal keeps what a node must remember across a crash: the write-ahead log that is the coterie.Journal on
// disk, and the folder of snapshots beside it.
package wal
