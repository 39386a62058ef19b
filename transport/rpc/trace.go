package rpc

import (
	"context"
	"encoding/hex"
	"fmt"
)

// Trace is the position of a call in a distributed trace, as W3C Trace Context (Level 1, 2021) has it. The calls of a
// client carry that of their context to the handler's context; the zero value is none. This package makes no spans: an
// Interceptor of a tracing library does, and puts the new one in the context by WithTrace.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte // parent-id
	Flags   byte    // 1 is sampled
	State   string  // tracestate, as it came; at most 512 bytes travel
}

const (
	traceSize     = 1 + 16 + 8 + 1
	maxTraceState = 512
)

// IsZero reports whether there is none.
func (t Trace) IsZero() bool { return t.TraceID == [16]byte{} }

// Traceparent returns the header's value, "00-<trace id>-<parent id>-<flags>".
func (t Trace) Traceparent() string {
	return fmt.Sprintf("00-%x-%x-%02x", t.TraceID, t.SpanID, t.Flags)
}

// ParseTraceparent reads the value of a traceparent header; State is left empty. Of a version that it does not know
// it reads the parts that it does (section 3.2.3); an all-zero id is an error.
func ParseTraceparent(s string) (Trace, error) {
	var t Trace
	bad := fmt.Errorf("rpc: traceparent %.80q is malformed", s)
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" ||
		len(s) > 55 && (s[:2] == "00" || s[55] != '-') {
		return Trace{}, bad
	}
	for i := range 55 {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Trace{}, bad
		}
	}
	var version, flags [1]byte
	for _, part := range []struct {
		to   []byte
		from string
	}{{version[:], s[:2]}, {t.TraceID[:], s[3:35]}, {t.SpanID[:], s[36:52]}, {flags[:], s[53:55]}} {
		if _, err := hex.Decode(part.to, []byte(part.from)); err != nil {
			return Trace{}, bad
		}
	}
	t.Flags = flags[0]
	if t.TraceID == [16]byte{} || t.SpanID == [8]byte{} {
		return Trace{}, bad
	}
	return t, nil
}

func (t Trace) appendBinary(b []byte) []byte {
	b = append(b, 0)
	b = append(append(b, t.TraceID[:]...), t.SpanID[:]...)
	return append(b, t.Flags)
}

// setBinary sets what appendBinary appended.
func setBinary(t *Trace, p []byte) {
	if len(p) < traceSize {
		return
	}
	copy(t.TraceID[:], p[1:])
	copy(t.SpanID[:], p[17:])
	t.Flags = p[25]
}

type traceKey struct{}

// WithTrace returns a context whose calls carry the trace.
func WithTrace(ctx context.Context, t Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceOf returns the trace that a context carries: in a handler, that of its caller.
func TraceOf(ctx context.Context) Trace {
	t, _ := ctx.Value(traceKey{}).(Trace)
	return t
}
