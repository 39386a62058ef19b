package consistency

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The values of EDN (github.com/edn-format/edn) that are not Go's own: nil is nil, integers are int64, lists, vectors
// and sets are []any, a tagged value is its value.
type (
	ednKeyword string // without its colon
	ednSymbol  string
	ednMap     []ednPair
)

type ednPair struct{ key, value any }

// get returns a keyword's value, nil if there is none.
func (m ednMap) get(key ednKeyword) any {
	for _, p := range m {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// ednReader reads EDN values from a text.
type ednReader struct {
	text  string
	at    int
	depth int
}

// maxDepth bounds how deep values may nest, so that no input overflows the stack.
const maxDepth = 200

var errEDNEnd = errors.New("unexpected end")

// more skips space, commas, comments and discarded values, and reports whether a value follows.
func (r *ednReader) more() (bool, error) {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',' || c == '\f':
			r.at++
		case c == ';':
			end := strings.IndexByte(r.text[r.at:], '\n')
			if end < 0 {
				r.at = len(r.text)
				return false, nil
			}
			r.at += end + 1
		case strings.HasPrefix(r.text[r.at:], "#_"):
			r.at += 2
			if _, err := r.value(); err != nil {
				return false, err
			}
		default:
			return true, nil
		}
	}
	return false, nil
}

// value reads the next value.
func (r *ednReader) value() (any, error) {
	if r.depth++; r.depth > maxDepth {
		return nil, r.fail("values nest deeper than %d", maxDepth)
	}
	defer func() { r.depth-- }()
	ok, err := r.more()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, r.fail("%w", errEDNEnd)
	}
	switch c := r.text[r.at]; c {
	case '(', '[':
		r.at++
		return r.list(map[byte]byte{'(': ')', '[': ']'}[c])
	case '{':
		r.at++
		return r.mapping()
	case '"':
		return r.str()
	case '#':
		return r.tagged()
	case '\\':
		return r.char()
	case ')', ']', '}':
		return nil, r.fail("unexpected %q", c)
	}
	return r.atom()
}

func (r *ednReader) list(end byte) ([]any, error) {
	items := []any{}
	for {
		ok, err := r.more()
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, r.fail("%w", errEDNEnd)
		case r.text[r.at] == end:
			r.at++
			return items, nil
		}
		item, err := r.value()
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
}

func (r *ednReader) mapping() (ednMap, error) {
	start := r.at
	items, err := r.list('}')
	if err != nil {
		return nil, err
	}
	if len(items)%2 != 0 {
		r.at = start
		return nil, r.fail("a map with a key but no value")
	}
	m := make(ednMap, 0, len(items)/2)
	for i := 0; i < len(items); i += 2 {
		m = append(m, ednPair{items[i], items[i+1]})
	}
	return m, nil
}

// tagged reads #{a set} or #tag value, of which the value counts.
func (r *ednReader) tagged() (any, error) {
	r.at++
	if r.at < len(r.text) && r.text[r.at] == '{' {
		r.at++
		return r.list('}')
	}
	if r.word() == "" {
		return nil, r.fail("a # without a tag")
	}
	return r.value()
}

func (r *ednReader) str() (string, error) {
	var b strings.Builder
	for i := r.at + 1; i < len(r.text); i++ {
		switch c := r.text[i]; c {
		case '"':
			r.at = i + 1
			return b.String(), nil
		case '\\':
			i++
			if i == len(r.text) {
				continue
			}
			switch c := r.text[i]; c {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case '\\', '"':
				b.WriteByte(c)
			case 'u':
				if i+4 >= len(r.text) {
					return "", r.fail("%w", errEDNEnd)
				}
				code, err := strconv.ParseUint(r.text[i+1:i+5], 16, 16)
				if err != nil {
					return "", r.fail("bad escape \\u%q", r.text[i+1:i+5])
				}
				b.WriteRune(rune(code))
				i += 4
			default:
				return "", r.fail("bad escape \\%c", c)
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", r.fail("a string without an end")
}

// char reads \c or \newline as a string.
func (r *ednReader) char() (string, error) {
	r.at++
	if r.at == len(r.text) {
		return "", r.fail("%w", errEDNEnd)
	}
	_, size := utf8.DecodeRuneInString(r.text[r.at:])
	first := r.text[r.at : r.at+size]
	r.at += size
	return first + r.word(), nil
}

// word reads letters up to a delimiter.
func (r *ednReader) word() string {
	start := r.at
	for r.at < len(r.text) && !strings.ContainsRune(" \t\r\n\f,;()[]{}\"", rune(r.text[r.at])) {
		r.at++
	}
	return r.text[start:r.at]
}

func (r *ednReader) atom() (any, error) {
	w := r.word()
	switch w {
	case "nil":
		return nil, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "":
		return nil, r.fail("unexpected %q", r.text[r.at])
	}
	if w[0] == ':' {
		if len(w) == 1 {
			return nil, r.fail("a keyword without a name")
		}
		return ednKeyword(w[1:]), nil
	}
	if c := w[0]; c >= '0' && c <= '9' || len(w) > 1 && (c == '-' || c == '+') && w[1] >= '0' && w[1] <= '9' {
		if n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(w, "+"), "N"), 10, 64); err == nil {
			return n, nil
		}
		f, err := strconv.ParseFloat(strings.TrimSuffix(w, "M"), 64)
		if err != nil {
			return nil, r.fail("bad number %q", w)
		}
		return f, nil
	}
	return ednSymbol(w), nil
}

func (r *ednReader) fail(format string, args ...any) error {
	line := 1 + strings.Count(r.text[:min(r.at, len(r.text))], "\n")
	return fmt.Errorf("%w: line %d: %w", ErrHistory, line, fmt.Errorf(format, args...))
}

// ednText writes a value of a register as text; nil, which is what registers hold at first, is empty.
func ednText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case ednKeyword:
		return ":" + string(v)
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = ednText(x)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case ednMap:
		parts := make([]string, len(v))
		for i, p := range v {
			parts[i] = ednText(p.key) + " " + ednText(p.value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v)
}
