//go:build unix

package wal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
)

const childEnv = "COTERIE_WAL_TEST_CHILD"

// child runs this test again in a process of its own, with an argument.
func child(t *testing.T, arg string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childEnv+"="+arg)
	cmd.Stderr = os.Stderr
	return cmd
}

// appendUntilError appends numbered records and prints each number when it is acknowledged.
func appendUntilError(l *Log, from int) error {
	for i := from; ; i++ {
		if err := l.Append(fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", 1000))); err != nil {
			return err
		}
		fmt.Println("acked", i)
	}
}

// acked reads the numbers that a child printed, and its other lines.
func acked(out []byte) (last int, lines []string) {
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	for sc.Scan() {
		if n, ok := strings.CutPrefix(sc.Text(), "acked "); ok {
			if i, err := strconv.Atoi(n); err == nil {
				last = max(last, i)
			}
			continue
		}
		lines = append(lines, sc.Text())
	}
	return last, lines
}

// requireNumbers checks that a log holds the records from 1 up to at least last, and returns how many.
func requireNumbers(t *testing.T, l *Log, last int) int {
	t.Helper()
	n := 0
	require.NoError(t, l.Replay(func(r []byte) error {
		n++
		if !strings.HasPrefix(string(r), fmt.Sprint(n, " x")) {
			return fmt.Errorf("record %d is %.20q", n, r)
		}
		return nil
	}))
	require.GreaterOrEqual(t, n, last)
	return n
}

// A process whose files may not grow on, as on a full disk, gets an error and has lost nothing acknowledged.
func TestFileSizeLimit(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		signal.Ignore(syscall.SIGXFSZ)
		limit := syscall.Rlimit{Cur: 3 << 19, Max: 3 << 19}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			fmt.Println("cannot limit", err)
			return
		}
		l, err := Open(Config{Dir: dir})
		if err == nil {
			err = appendUntilError(l, 1)
		}
		fmt.Println("poisoned", errors.Is(err, ErrPoisoned), "again", errors.Is(l.Append(nil), ErrPoisoned))
		return
	}
	dir := t.TempDir()
	out, err := child(t, dir).Output()
	require.NoError(t, err)
	last, lines := acked(out)
	require.Contains(t, lines, "poisoned true again true")
	require.Greater(t, last, 900)
	l := mustOpen(t, Config{Dir: dir})
	n := requireNumbers(t, l, last)
	require.NoError(t, l.Append(fmt.Appendf(nil, "%d x", n+1)))
	require.NoError(t, l.Close())
	l = mustOpen(t, Config{Dir: dir})
	requireNumbers(t, l, n+1)
	require.NoError(t, l.Close())
}

// A process that is killed in the middle of appends has lost nothing that it acknowledged, and its lock is free.
func TestKilledProcess(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		l, err := Open(Config{Dir: dir, SegmentSize: 64 << 10})
		if err != nil {
			fmt.Println(err)
			return
		}
		n := 0
		_ = l.Replay(func([]byte) error { n++; return nil })
		fmt.Println(appendUntilError(l, n+1))
		return
	}
	dir := t.TempDir()
	for round := range testsize.N(3, 50) {
		cmd := child(t, dir)
		pipe, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		var out []byte
		sc := bufio.NewScanner(pipe)
		for n := 0; n < 100+round && sc.Scan(); n++ {
			out = append(append(out, sc.Bytes()...), '\n')
		}
		require.NoError(t, cmd.Process.Kill())
		for sc.Scan() {
			out = append(append(out, sc.Bytes()...), '\n')
		}
		_ = cmd.Wait()
		last, _ := acked(out)
		require.Positive(t, last, string(out))
		l := mustOpen(t, Config{Dir: dir})
		requireNumbers(t, l, last)
		require.NoError(t, l.Close())
	}
}

// A file system that is full gives an error at the next segment; when there is room again the log opens. It needs
// the right to mount a small tmpfs.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := mountTmpfs(dir, 4<<20); err != nil {
		t.Skip("cannot mount a tmpfs: ", err)
	}
	t.Cleanup(func() { _ = unmount(dir) })
	cfg := Config{Dir: dir + "/log", SegmentSize: 256 << 10}
	l := mustOpen(t, cfg)
	require.NoError(t, os.WriteFile(dir+"/ballast", make([]byte, 2<<20), 0o600))
	n := 0
	var err error
	for err == nil {
		if err = l.Append(fmt.Appendf(nil, "%d %s", n+1, strings.Repeat("x", 1000))); err == nil {
			n++
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, l.Append(nil), ErrPoisoned)
	require.NoError(t, l.Close())
	require.NoError(t, os.Remove(dir+"/ballast"))
	l = mustOpen(t, cfg)
	n = requireNumbers(t, l, n)
	require.NoError(t, l.Append(fmt.Appendf(nil, "%d x", n+1)))
	requireNumbers(t, l, n+1)
	require.NoError(t, l.Close())
}
