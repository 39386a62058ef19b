package rpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/coterie-go/coterie"
)

// Code says how a call ended, over the wire. Codes from FirstAppCode on are the application's own.
type Code uint8

// The codes of this package. Which of them mean that the handler did not run is in brackets.
const (
	OK               Code = 0
	Failed           Code = 1  // the handler returned an error that has no code
	Canceled         Code = 2  // context.Canceled
	DeadlineExceeded Code = 3  // context.DeadlineExceeded
	UnknownMethod    Code = 4  // ErrUnknownMethod [not run]
	BadRequest       Code = 5  // ErrBadRequest: the request cannot be decoded [not run]
	Overloaded       Code = 6  // coterie.ErrOverloaded [not run]
	Unavailable      Code = 7  // coterie.ErrClosed: the server is shutting down [not run]
	Internal         Code = 8  // the handler panicked, or its answer cannot be encoded
	UnknownOutcome   Code = 9  // coterie.ErrUnknownOutcome
	NotLeader        Code = 10 // coterie.ErrNotLeader; Error.Detail names the leader if it is known
	NoQuorum         Code = 11 // coterie.ErrNoQuorum
	SessionExpired   Code = 12 // ErrSessionExpired [not run]
	TooLarge         Code = 13 // ErrTooLarge: the answer is over the limit

	FirstAppCode Code = 64
)

// Errors of this package. They come wrapped: test with errors.Is.
var (
	// ErrUnreachable is returned when no connection to the server could be made: nothing was done.
	ErrUnreachable = errors.New("rpc: unreachable")
	// ErrUnknownMethod is returned for a method that the server does not have: nothing was done.
	ErrUnknownMethod = errors.New("rpc: unknown method")
	// ErrBadRequest is returned when the server cannot decode the request: nothing was done. Both sides must use the
	// same Codec and compatible types.
	ErrBadRequest = errors.New("rpc: bad request")
	// ErrTooLarge is returned for a request, answer or stream message over MaxMessage. A request that is too large was
	// not sent; of one whose answer is too large the handler has run.
	ErrTooLarge = errors.New("rpc: message too large")
	// ErrSessionExpired is returned for an at-most-once call when the server has forgotten the client's session, so
	// that it could not tell a repetition: it was not executed by this try. It comes with coterie.ErrUnknownOutcome if
	// an earlier try may have been.
	ErrSessionExpired = errors.New("rpc: session expired")
)

// sentinels are what errors.Is finds in an Error of a code, and the codes of errors that handlers return: the first
// that matches counts.
var sentinels = []struct {
	code Code
	err  error
}{
	{UnknownOutcome, coterie.ErrUnknownOutcome},
	{NotLeader, coterie.ErrNotLeader},
	{Overloaded, coterie.ErrOverloaded},
	{NoQuorum, coterie.ErrNoQuorum},
	{Unavailable, coterie.ErrClosed},
	{DeadlineExceeded, context.DeadlineExceeded},
	{Canceled, context.Canceled},
	{UnknownMethod, ErrUnknownMethod},
	{BadRequest, ErrBadRequest},
	{TooLarge, ErrTooLarge},
	{SessionExpired, ErrSessionExpired},
}

// Error is an error that came from the server, and what a handler may return to choose a code. errors.Is finds in it
// the sentinel of its code, and errors.As a *coterie.NotLeaderError.
type Error struct {
	Code    Code
	Message string
	Detail  string // for programs: with NotLeader the leader's id
	// NotRun is true if the server says that the handler did not run.
	NotRun bool
}

// Error returns the message.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("rpc: code %d", e.Code)
	}
	return e.Message
}

// Unwrap returns the sentinel of the code, if it has one.
func (e *Error) Unwrap() error {
	if e.Code == NotLeader {
		return &coterie.NotLeaderError{Leader: coterie.NodeID(e.Detail)}
	}
	for _, s := range sentinels {
		if s.code == e.Code {
			return s.err
		}
	}
	return nil
}

// CodeOf returns the code by which an error travels: OK for nil, that of an *Error, that of a sentinel, or Failed.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	return Failed
}

// toError is the Error by which an error travels.
func toError(err error) *Error {
	out := &Error{Code: CodeOf(err), Message: clip(err.Error(), maxOverhead/2)}
	if e := (*Error)(nil); errors.As(err, &e) {
		out.Detail, out.NotRun = clip(e.Detail, maxOverhead/4), e.NotRun
	}
	if not := (*coterie.NotLeaderError)(nil); out.Detail == "" && errors.As(err, &not) {
		out.Detail = clip(string(not.Leader), maxOverhead/4)
	}
	if out.Code == OK {
		out.Code = Failed // an Error without a code is an error all the same
	}
	return out
}

func clip(s string, most int) string { return s[:min(len(s), most)] }

// refusal is an answer without the handler having run.
func refusal(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: "rpc: " + fmt.Sprintf(format, args...), NotRun: true}
}
