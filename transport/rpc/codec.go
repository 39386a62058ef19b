package rpc

import (
	"encoding"
	"encoding/json"
	"fmt"
)

// Codec turns the values of calls into bytes and back. Both sides of a method must use the same. It is called by many
// goroutines at once.
type Codec interface {
	// Append appends the encoding of *v, where v is a pointer to the request or answer, to b.
	Append(b []byte, v any) ([]byte, error)
	// Decode sets *v from data, all of it. v may keep parts of data, which nobody changes; it must copy what it will
	// change itself.
	Decode(data []byte, v any) error
}

// Codecs of this package.
var (
	// Auto is the default: []byte and string travel as they are, a type with binary marshalers by these, and any other
	// as JSON. A []byte that is received is a part of what was read from the connection: it may be kept and not be
	// changed.
	Auto Codec = auto{}
	// Binary takes []byte, string and types with binary marshalers: encoding.BinaryAppender or BinaryMarshaler, and
	// encoding.BinaryUnmarshaler. For others it returns an error.
	Binary Codec = binaryCodec{}
	// JSON takes all that encoding/json does. Fields that a peer does not know are skipped.
	JSON Codec = jsonCodec{}
)

type (
	auto        struct{}
	binaryCodec struct{}
	jsonCodec   struct{}
)

func (auto) Append(b []byte, v any) ([]byte, error) {
	if out, known, err := appendBinary(b, v); known {
		return out, err
	}
	return JSON.Append(b, v)
}

func (auto) Decode(data []byte, v any) error {
	if known, err := decodeBinary(data, v); known {
		return err
	}
	return JSON.Decode(data, v)
}

func (binaryCodec) Append(b []byte, v any) ([]byte, error) {
	out, known, err := appendBinary(b, v)
	if !known {
		return nil, fmt.Errorf("rpc: %T has no binary marshaler", v)
	}
	return out, err
}

func (binaryCodec) Decode(data []byte, v any) error {
	known, err := decodeBinary(data, v)
	if !known {
		return fmt.Errorf("rpc: %T has no binary unmarshaler", v)
	}
	return err
}

func (jsonCodec) Append(b []byte, v any) ([]byte, error) {
	p, err := json.Marshal(v)
	return append(b, p...), err
}

func (jsonCodec) Decode(data []byte, v any) error { return json.Unmarshal(data, v) }

// appendBinary reports whether it knows how. A type that marshals itself must unmarshal itself too, else its peer would
// decode by other means than it was encoded by.
func appendBinary(b []byte, v any) (out []byte, known bool, err error) {
	switch v := v.(type) {
	case *[]byte:
		return append(b, *v...), true, nil
	case *string:
		return append(b, *v...), true, nil
	}
	if _, back := v.(encoding.BinaryUnmarshaler); !back {
		return nil, false, nil
	}
	switch v := v.(type) {
	case encoding.BinaryAppender:
		out, err = v.AppendBinary(b)
		return out, true, err
	case encoding.BinaryMarshaler:
		p, err := v.MarshalBinary()
		return append(b, p...), true, err
	}
	return nil, false, nil
}

func decodeBinary(data []byte, v any) (known bool, err error) {
	switch v := v.(type) {
	case *[]byte:
		*v = data
		return true, nil
	case *string:
		*v = string(data)
		return true, nil
	}
	switch v.(type) {
	case encoding.BinaryAppender, encoding.BinaryMarshaler:
		if v, ok := v.(encoding.BinaryUnmarshaler); ok {
			return true, v.UnmarshalBinary(data)
		}
	}
	return false, nil
}
