package wal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata, where bytes stand as lines of hex.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(hex.Dump(got)), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), hex.Dump(got))
	return got
}

const goldenSalt = 0x0123456789abcdef

// goldenSegment is a segment with each kind of record in it.
func goldenSegment() []byte {
	h := header{number: 7, size: 2048, salt: goldenSalt, prevEnd: 1000, prevSalt: 42, owner: "node-1"}
	b := h.encode()
	body := make([]byte, markSize)
	body = appendNote(body, kindName, 3, naming{5, 4, "orders"}.append)
	body = append(startRecord(body, kindData, 3, 5), "first"...)
	body = appendNote(body, kindKeep, 3, func(b []byte) []byte { return append(b, 5) })
	body = appendNote(body, kindMove, 3, moving{5, 1}.append)
	body = append(startRecord(body, kindCopy, 3, 5), "first"...)
	seal(body[markSize:], putMark(body, goldenSalt, headerSize))
	return append(b, body...)
}

// memWith is a disk with one segment on it, zeros up to its size.
func memWith(segment []byte) (*vfs.Mem, Config) {
	mem := vfs.NewMem()
	_ = mem.MkdirAll("d")
	_, _ = mem.Create("d/"+segmentName(7), 2048)
	mem.Edit("d/"+segmentName(7), func(b []byte) []byte { copy(b, segment); return b })
	return mem, Config{Dir: "d", Owner: "node-1", SegmentSize: minSegmentSize, fs: mem}
}

func TestGoldenSegment(t *testing.T) {
	segment := golden(t, "segment.hex", goldenSegment())
	mem, cfg := memWith(segment)
	l := mustOpen(t, cfg)
	require.Equal(t, []string{"first"}, replay(t, l.Stream("orders")))
	require.NoError(t, l.Append([]byte("more")))
	require.NoError(t, l.Close())
	_, err := mem.Open("d/" + segmentName(7))
	require.NoError(t, err)
}

func TestNewerFormat(t *testing.T) {
	segment := goldenSegment()
	segment[0] = format + 1
	_, cfg := memWith(segment)
	_, err := Open(cfg)
	var newer *coterie.FormatError
	require.ErrorAs(t, err, &newer)
	require.Equal(t, coterie.FormatError{What: "wal segment", Got: format + 1, Max: format}, *newer)
	require.ErrorContains(t, err, segmentName(7))
}

// Records that are sound but say what cannot be are corruption, not a torn tail.
func TestRecordsThatCannotBe(t *testing.T) {
	name := func(b []byte) []byte { return appendNote(b, kindName, 3, naming{5, 4, "s"}.append) }
	for what, body := range map[string]func([]byte) []byte{
		"data without a name": func(b []byte) []byte { return startRecord(b, kindData, 3, 0) },
		"name out of order":   func(b []byte) []byte { return appendNote(name(b), kindName, 4, naming{9, 4, "s"}.append) },
		"name over its limit": func(b []byte) []byte {
			return appendNote(b, kindName, 4, naming{1, 1, string(make([]byte, maxName+1))}.append)
		},
		"name of record 0": func(b []byte) []byte { return appendNote(b, kindName, 4, naming{0, 0, "s"}.append) },
		"keep of later records": func(b []byte) []byte {
			return appendNote(name(b), kindKeep, 3, func(b []byte) []byte { return append(b, 9) })
		},
		"empty keep":          func(b []byte) []byte { return startRecord(name(b), kindKeep, 3, 0) },
		"move of later ones":  func(b []byte) []byte { return appendNote(name(b), kindMove, 3, moving{5, 2}.append) },
		"copy without a move": func(b []byte) []byte { return startRecord(name(b), kindCopy, 3, 0) },
	} {
		b := body(make([]byte, markSize))
		seal(b[markSize:], putMark(b, goldenSalt, headerSize))
		_, cfg := memWith(append(goldenSegment()[:headerSize:headerSize], b...))
		_, err := Open(cfg)
		var corrupt *CorruptionError
		require.ErrorAs(t, err, &corrupt, what)
	}
}

func TestHeaderErrors(t *testing.T) {
	good := header{number: 7, size: 2048, salt: goldenSalt, prevEnd: 0, owner: "node-1"}
	for what, h := range map[string]header{
		"size":   {number: 7, size: 3, owner: "node-1"},
		"end":    {number: 7, size: 2048, prevEnd: -1, owner: "node-1"},
		"number": {number: 8, size: 2048, owner: "node-1"},
	} {
		_, cfg := memWith(h.encode())
		_, err := Open(cfg)
		var corrupt *CorruptionError
		require.ErrorAs(t, err, &corrupt, what)
		require.Zero(t, corrupt.Offset)
	}
	_, cfg := memWith(good.encode())
	require.NoError(t, mustOpen(t, cfg).Close())
	_, err := decodeHeader(nil)
	require.Error(t, err)
}

func FuzzHeader(f *testing.F) {
	f.Add(goldenSegment()[:headerSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err == nil && !bytes.Equal(h.encode(), b[:headerSize]) {
			again, err := decodeHeader(h.encode())
			if err != nil || again != h {
				t.Fatalf("%+v does not survive its encoding", h)
			}
		}
	})
}

// FuzzBodies reads the bodies of name, move and keep records.
func FuzzBodies(f *testing.F) {
	f.Add(naming{5, 4, "orders"}.append(nil))
	f.Add(moving{5, 1}.append(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNaming(b); err == nil {
			if again, err := decodeNaming(n.append(nil)); err != nil || again != n {
				t.Fatalf("%+v does not survive its encoding", n)
			}
		}
		if m, err := decodeMoving(b); err == nil {
			if again, err := decodeMoving(m.append(nil)); err != nil || again != m {
				t.Fatalf("%+v does not survive its encoding", m)
			}
		}
		_, _ = decodeKeep(b)
	})
}

// FuzzOpen opens a log with any bytes behind a sound header: a typed error, or a log that can be used and opened
// again. With resealed set the records get right checksums, so that what they say is reached.
func FuzzOpen(f *testing.F) {
	f.Add(goldenSegment()[headerSize:], false)
	f.Add(goldenSegment()[headerSize:], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, records []byte, resealed bool) {
		records = records[:min(len(records), 2048-headerSize)]
		if resealed && len(records) >= markSize {
			putMark(records, goldenSalt, headerSize)
			reseal(records[markSize:], bytesUint32(records))
		}
		_, cfg := memWith(append(goldenSegment()[:headerSize:headerSize], records...))
		l, err := Open(cfg)
		if _, ok := errors.AsType[*CorruptionError](err); ok {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		n := len(replay(t, l.Stream("orders")))
		if err := errors.Join(l.Stream("orders").Append([]byte("x")), l.Close()); err != nil {
			t.Fatal(err)
		}
		l, err = Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(replay(t, l.Stream("orders"))); got != n+1 {
			t.Fatalf("%d records, then one more, then %d", n, got)
		}
	})
}

func bytesUint32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// reseal makes the checksums right for as long as there are whole records.
func reseal(b []byte, chain uint32) {
	for len(b) >= headSize {
		n := headSize + int(bytesUint32(b[4:]))
		if n < headSize || n > len(b) {
			return
		}
		chain = seal(b[:n], chain)
		b = b[n:]
	}
}

func TestReaderStopsAtTheEnd(t *testing.T) {
	_, cfg := memWith(goldenSegment())
	f, err := cfg.fs.Open("d/" + segmentName(7))
	require.NoError(t, err)
	r := newReader(f, goldenSalt, int64(len(goldenSegment())), true)
	var kinds []byte
	for {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		kinds = append(kinds, rec.kind)
	}
	require.Equal(t, []byte{kindMark, kindName, kindData, kindKeep, kindMove, kindCopy}, kinds)
}
