// Package text is a sequence of characters that many replicas edit at once, for collaborative editing: a Fugue tree in
// runs (Weidner and Kleppmann, "The Art of the Fugue", 2023), with cursors that stay at their place, undo, and changes as
// an editor needs them.
//
// A local edit returns a Delta, a few bytes for a keystroke; Merge takes deltas in any order, and keeps those that came
// before what they build on. Since returns what another replica lacks, which with the zero version is the whole text.
// For lists of other things than characters take crdt.List; for plain strings that are replaced as a whole take a
// register.
//
// # Guarantees
//
// Replicas that have merged the same deltas have the same text. Characters typed in a row, forwards or backwards, stay
// in a row whatever others type at the same place at the same time. Deleting what somebody else has changed meanwhile
// deletes just what was there. A malformed Delta gives an error and changes nothing.
//
// # Cost
//
// An edit takes some 60 ns near the edit before it and O(log n) elsewhere, without allocation; a remote one some 100 ns.
// A text takes some 12 bytes a character in memory and, encoded, less than its UTF-8. Deleted characters cost by runs,
// and nothing once Stable has collected them; the text that was deleted is forgotten at once.
//
// # Fault model
//
// That of package crdt: ids are unique, replicas are trusted not to lie, and one that lost its state takes a new id.
package text
