package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coterie-go/coterie"
)

// robot writes a verse, letter by letter, at a place of its own, in a replica of its own: n verses, or until ctx ends if
// n is 0. It starts a goroutine if n is 0, else it returns when done.
func (h *hub) robot(ctx context.Context, pause time.Duration, n int) {
	s, _, err := h.join("robot")
	if err != nil {
		return
	}
	write := func() {
		const verse = "The quick brown fox writes while you do. "
		for i := 0; n == 0 || i < n; i++ {
			for _, r := range verse {
				h.mu.Lock()
				cursor, err := s.doc.Position(s.cursor)
				size := s.doc.Len()
				h.mu.Unlock()
				if err != nil || ctx.Err() != nil {
					return
				}
				e := edit{ID: s.id, Pos: cursor, Ins: string(r), Cursor: cursor + 1}
				if n == 0 && size > 1000 { // leave some room for others
					e = edit{ID: s.id, Pos: cursor, Del: min(5, size-cursor), Cursor: cursor}
				}
				if _, err := h.apply(e); err != nil {
					return
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		}
	}
	// It begins at the end of the text.
	if _, err := h.apply(edit{ID: s.id, Cursor: len(welcome)}); err != nil {
		return
	}
	if n == 0 {
		go write()
		return
	}
	write()
}

// client is a page without a browser: it shows a text, edits it, and asks for changes when it is poked.
type client struct {
	url   string
	id    coterie.NodeID
	text  []rune
	at    int // cursor
	pokes chan struct{}
	end   context.CancelFunc
}

// open starts a client and waits for its text.
func open(ctx context.Context, base, name string, group *errgroup.Group) (*client, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/events?name="+name, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	c := &client{url: base, pokes: make(chan struct{}, 1), end: cancel}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && c.id == "" {
		if data, found := strings.CutPrefix(lines.Text(), "data: "); found {
			var hello struct {
				ID   coterie.NodeID `json:"id"`
				Text string         `json:"text"`
			}
			if err := json.Unmarshal([]byte(data), &hello); err != nil {
				cancel()
				return nil, errors.Join(err, resp.Body.Close())
			}
			c.id, c.text = hello.ID, []rune(hello.Text)
		}
	}
	group.Go(func() error {
		defer func() { _ = resp.Body.Close() }()
		for lines.Scan() {
			if lines.Text() == "event: poke" {
				select {
				case c.pokes <- struct{}{}:
				default:
				}
			}
		}
		return nil // the stream ends when the client does
	})
	return c, nil
}

// edit sends a change of the shown text at the cursor, which may be none, and makes the others' changes: del characters
// before the cursor go, ins comes.
func (c *client) edit(del int, ins string) error {
	pos := c.at - del
	c.replace(pos, del, ins)
	c.at = pos + len([]rune(ins))
	body, err := json.Marshal(edit{c.id, pos, del, ins, c.at})
	if err != nil {
		return err
	}
	resp, err := http.Post(c.url+"/edit", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("edit: %s", resp.Status)
	}
	var r reply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return err
	}
	for _, x := range r.Changes {
		c.replace(x.Pos, x.Del, x.Ins)
		if x.Pos < c.at {
			c.at = max(x.Pos, c.at-x.Del) + len([]rune(x.Ins))
		}
	}
	return nil
}

func (c *client) replace(pos, del int, ins string) {
	tail := append([]rune(ins), c.text[pos+del:]...)
	c.text = append(c.text[:pos], tail...)
}

func (c *client) offline(offline bool) error {
	resp, err := http.PostForm(c.url+"/offline", url.Values{"id": {string(c.id)}, "offline": {fmt.Sprint(offline)}})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("offline: %s", resp.Status)
	}
	return nil
}

// write types a sentence at the cursor, letter by letter, with a mistake now and then that it takes back.
func (c *client) write(rng *rand.Rand, sentence string) error {
	for _, r := range sentence {
		if rng.IntN(10) == 0 {
			if err := c.edit(0, "#"); err != nil {
				return err
			}
			if err := c.edit(1, ""); err != nil {
				return err
			}
		}
		if err := c.edit(0, string(r)); err != nil {
			return err
		}
	}
	return nil
}

// script lets two clients and the robot write, one of the clients offline for a while, and compares what they see.
func script(ctx context.Context, h *hub, base string) error {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	var streams, writers errgroup.Group
	var clients []*client
	for _, name := range []string{"ann", "bob"} {
		c, err := open(ctx, base, name, &streams)
		if err != nil {
			return err
		}
		defer c.end()
		clients = append(clients, c)
	}
	ann, bob := clients[0], clients[1]
	writers.Go(func() error { h.robot(ctx, 2*time.Millisecond, 10); return nil })
	writers.Go(func() error {
		rng := rand.New(rand.NewPCG(1, 1))
		return ann.write(rng, strings.Repeat("Ann writes at the top. ", 8))
	})
	writers.Go(func() error {
		rng := rand.New(rand.NewPCG(1, 2))
		bob.at = len(welcome) - 1
		if err := bob.write(rng, strings.Repeat("Bob is online. ", 4)); err != nil {
			return err
		}
		if err := bob.offline(true); err != nil {
			return err
		}
		if err := bob.write(rng, strings.Repeat("Bob is not. ", 4)); err != nil {
			return err
		}
		return bob.offline(false)
	})
	if err := writers.Wait(); err != nil {
		return err
	}
	want := h.String()
	for _, c := range clients {
		for string(c.text) != want {
			if err := c.edit(0, ""); err != nil {
				return err
			}
			if string(c.text) == want {
				break
			}
			select {
			case <-c.pokes:
			case <-ctx.Done():
				return fmt.Errorf("%s sees %q, the hub %q", c.id, string(c.text), want)
			}
		}
		c.end()
	}
	if err := streams.Wait(); err != nil {
		return err
	}
	fmt.Println(want)
	fmt.Printf("\nann, bob, the robot and the hub see the same %d characters\n", len([]rune(want)))
	return nil
}

// String returns the text as those online see it.
func (h *hub) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.doc.String()
}
