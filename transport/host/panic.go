package host

import (
	"fmt"
	"runtime/debug"

	"github.com/coterie-go/coterie"
)

// PanicError is what a Host's Err returns after its core, a call or the event handler has panicked.
type PanicError struct {
	Value any    // what was passed to panic
	Input string // what the core was given
	Stack string
}

func newPanicError(value any, input string) *PanicError {
	return &PanicError{Value: value, Input: input, Stack: string(debug.Stack())}
}

// Error tells the value and the input; Stack is left out.
func (e *PanicError) Error() string { return fmt.Sprintf("host: panic on %s: %v", e.Input, e.Value) }

// input is what the host's goroutine is doing for the core.
type input struct {
	what    string
	from    coterie.NodeID // of a message
	payload []byte         // of a message
}

// String shows a message as hexadecimal digits, a long one in part.
func (in input) String() string {
	const most = 1024
	switch {
	case in.from == "":
		return in.what
	case len(in.payload) > most:
		return fmt.Sprintf("%s from %s: %x... (%d bytes)", in.what, in.from, in.payload[:most], len(in.payload))
	}
	return fmt.Sprintf("%s from %s: %x", in.what, in.from, in.payload)
}
