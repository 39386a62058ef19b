package consistency

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/coterie-go/coterie"
)

// jsonVersion is the newest version of the format that WriteJSON writes.
const jsonVersion = 1

// maxLine bounds a line of a history file, in bytes.
const maxLine = 64 << 20

// jsonHeader is the first line.
type jsonHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

const jsonFormat = "coterie history"

// jsonOperation is every other line; times are nanoseconds.
type jsonOperation[In, Out any] struct {
	Client  int           `json:"client"`
	Call    time.Duration `json:"call"`
	Return  time.Duration `json:"return,omitempty"`
	Unknown bool          `json:"unknown,omitempty"`
	In      In            `json:"in"`
	Out     *Out          `json:"out,omitempty"`
}

// WriteJSON writes a history as JSON lines: a header, then one line for each operation.
func WriteJSON[In, Out any](w io.Writer, h History[In, Out]) error {
	buffered := bufio.NewWriter(w)
	enc := json.NewEncoder(buffered)
	if err := enc.Encode(jsonHeader{jsonFormat, jsonVersion}); err != nil {
		return err
	}
	for i := range h {
		op := &h[i]
		line := jsonOperation[In, Out]{
			Client: op.Client, Call: op.Call, Return: op.Return, Unknown: op.Unknown, In: op.In, Out: op.out(),
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("consistency: operation %d: %w", i, err)
		}
	}
	return buffered.Flush()
}

// ReadJSON reads what WriteJSON wrote. A malformed line is an ErrHistory, a newer format a *coterie.FormatError.
func ReadJSON[In, Out any](r io.Reader) (History[In, Out], error) {
	var h History[In, Out]
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if n == 1 {
			if err := readHeader(line); err != nil {
				return nil, err
			}
			continue
		}
		if len(line) == 0 {
			continue
		}
		var op jsonOperation[In, Out]
		if err := json.Unmarshal(line, &op); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrHistory, n, err)
		}
		o := Operation[In, Out]{Client: op.Client, Call: op.Call, Return: op.Return, Unknown: op.Unknown, In: op.In}
		switch {
		case op.Out != nil && !op.Unknown:
			o.Out = *op.Out
		case op.Unknown:
			o.Return = 0
		}
		h = append(h, o)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("consistency: reading a history: %w", err)
	}
	if err := h.Validate(); err != nil {
		return nil, err
	}
	return h, nil
}

func readHeader(line []byte) error {
	var head jsonHeader
	if err := json.Unmarshal(line, &head); err != nil || head.Format != jsonFormat {
		return fmt.Errorf("%w: the first line is not %q", ErrHistory, `{"format":"`+jsonFormat+`","version":1}`)
	}
	switch {
	case head.Version > jsonVersion:
		return &coterie.FormatError{What: "history", Got: byte(min(head.Version, 255)), Max: jsonVersion}
	case head.Version < 1:
		return fmt.Errorf("%w: version %d", ErrHistory, head.Version)
	}
	return nil
}
