package crdt

import (
	"strconv"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// EWFlag is a flag that is on if it is switched on and off at once (enable wins; Almeida, Shoker and Baquero, 2018,
// §7.3): an ORSet of one possible element.
//
// The zero value is off, ready to use. A copy made by assignment is the same flag. Reading is safe from many
// goroutines, changing is not.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with clock.Vector
type EWFlag struct{ s ORSet[struct{}] }

// Enable switches the flag on at replica id and returns the delta.
func (f *EWFlag) Enable(id coterie.NodeID) (delta EWFlag) { return EWFlag{f.s.Add(id, struct{}{})} }

// Disable switches the flag off and returns the delta. An Enable that this replica has not seen survives it.
func (f *EWFlag) Disable() (delta EWFlag) { return EWFlag{f.s.Remove(struct{}{})} }

// Enabled reports whether the flag is on.
func (f EWFlag) Enabled() bool { return f.s.Contains(struct{}{}) }

// Merge joins another replica's state, or a delta of it, into f.
func (f *EWFlag) Merge(o EWFlag) { f.s.Merge(o.s) }

// Clone returns a copy that shares nothing with f.
func (f EWFlag) Clone() EWFlag { return EWFlag{f.s.Clone()} }

// Context returns the events that the flag has seen, as a copy.
func (f EWFlag) Context() clock.DotSet { return f.s.Context() }

// AppendBinary appends the encoding of f. It never fails. Equal states have equal encodings.
func (f EWFlag) AppendBinary(b []byte) ([]byte, error) { return f.s.appendKind(b, kindEWFlag) }

// MarshalBinary returns the encoding of f.
func (f EWFlag) MarshalBinary() ([]byte, error) { return f.AppendBinary(nil) }

// UnmarshalBinary sets f from an encoding. Malformed bytes give an error and leave f as it was; those of a newer
// format a *coterie.FormatError.
func (f *EWFlag) UnmarshalBinary(b []byte) error { return f.s.unmarshalKind(b, kindEWFlag) }

// MarshalJSON returns true or false.
func (f EWFlag) MarshalJSON() ([]byte, error) { return strconv.AppendBool(nil, f.Enabled()), nil }

// DWFlag is a flag that is off if it is switched on and off at once (disable wins): an RWSet of one possible element.
//
// The zero value is off, ready to use. A copy made by assignment is the same flag. Reading is safe from many
// goroutines, changing is not.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with clock.Vector
type DWFlag struct{ s RWSet[struct{}] }

// Enable switches the flag on at replica id and returns the delta.
func (f *DWFlag) Enable(id coterie.NodeID) (delta DWFlag) { return DWFlag{f.s.Add(id, struct{}{})} }

// Disable switches the flag off at replica id and returns the delta. It wins over every Enable that had not seen it.
func (f *DWFlag) Disable(id coterie.NodeID) (delta DWFlag) { return DWFlag{f.s.Remove(id, struct{}{})} }

// Enabled reports whether the flag is on.
func (f DWFlag) Enabled() bool { return f.s.Contains(struct{}{}) }

// Merge joins another replica's state, or a delta of it, into f.
func (f *DWFlag) Merge(o DWFlag) { f.s.Merge(o.s) }

// Stable forgets a Disable that frontier covers, and returns how many it forgot; see RWSet.Stable.
func (f DWFlag) Stable(frontier clock.Vector) int { return f.s.Stable(frontier) }

// Clone returns a copy that shares nothing with f.
func (f DWFlag) Clone() DWFlag { return DWFlag{f.s.Clone()} }

// Context returns the events that the flag has seen, as a copy.
func (f DWFlag) Context() clock.DotSet { return f.s.Context() }

// AppendBinary appends the encoding of f. It never fails. Equal states have equal encodings.
func (f DWFlag) AppendBinary(b []byte) ([]byte, error) { return f.s.appendKind(b, kindDWFlag) }

// MarshalBinary returns the encoding of f.
func (f DWFlag) MarshalBinary() ([]byte, error) { return f.AppendBinary(nil) }

// UnmarshalBinary sets f from an encoding. Malformed bytes give an error and leave f as it was; those of a newer
// format a *coterie.FormatError.
func (f *DWFlag) UnmarshalBinary(b []byte) error { return f.s.unmarshalKind(b, kindDWFlag) }

// MarshalJSON returns true or false.
func (f DWFlag) MarshalJSON() ([]byte, error) { return strconv.AppendBool(nil, f.Enabled()), nil }
