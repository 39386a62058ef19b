package swim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/membership"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newTestCore(t require.TestingT, cfg Config) *Core {
	if cfg.ID == "" {
		cfg.ID = "self"
	}
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	c, err := NewCore(cfg)
	require.NoError(t, err)
	c.Tick(start)
	return c
}

// says is what a record in a packet says.
type says struct {
	id    string
	state membership.State
	inc   uint32
	life  uint32
	addr  string
	meta  string
	by    string
}

func (s says) append(b []byte) []byte {
	m := &member{state: s.state, inc: s.inc, life: s.life, metaSize: uint32(len(s.meta))}
	m.text, m.idLen, m.addrLen = s.id+s.addr+s.meta, uint8(len(s.id)), uint8(len(s.addr))
	if len(s.meta) > inlineMeta {
		m.ext = &ext{metaSum: sumMeta(s.meta)}
	}
	by := s.by
	if by == "" {
		by = "somebody"
	}
	return appendMember(b, m, s.state, by)
}

func packet(all ...says) []byte {
	b := []byte{formatPlain}
	for _, s := range all {
		b = s.append(b)
	}
	return b
}

func view(all ...says) []byte {
	b := append([]byte{formatPlain, kindSync, 0}, make([]byte, 8)...)
	for _, s := range all {
		b = s.append(b)
	}
	return b
}

func mustStep(t require.TestingT, c *Core, payload []byte) {
	require.NoError(t, c.Step(start.Add(time.Second), "peer", payload))
}

func stateOf(c *Core, id string) string {
	m, ok := c.Member(coterie.NodeID(id))
	if !ok {
		return "unknown"
	}
	return fmt.Sprintf("%v@%d", m.State, m.Incarnation)
}

// al8n/memberlist#197, a hole that it inherited: Dead@10 over Dead@1 was ignored, so that a late Alive@2 brought the dead
// back.
func TestLateAliveDoesNotResurrect(t *testing.T) {
	for _, gone := range []membership.State{membership.Unreachable, membership.Dead, membership.Left} {
		for name, wrap := range map[string]func(...says) []byte{"gossip": packet, "view": view} {
			c := newTestCore(t, Config{})
			for _, s := range []says{
				{id: "x", state: membership.Alive, inc: 1, life: 5}, {id: "x", state: gone, inc: 1, life: 5},
				{id: "x", state: gone, inc: 10, life: 5}, {id: "x", state: membership.Alive, inc: 2, life: 5},
				{id: "x", state: membership.Suspect, inc: 9, life: 5}, {id: "x", state: membership.Alive, inc: 10, life: 5},
			} {
				if s.state > membership.Suspect {
					mustStep(t, c, packet(s)) // of who is up a view's word is not enough
				} else {
					mustStep(t, c, wrap(s))
				}
			}
			require.Equal(t, fmt.Sprintf("%v@10", gone), stateOf(c, "x"), name)
			mustStep(t, c, wrap(says{id: "x", state: membership.Alive, inc: 11, life: 5}))
			require.Equal(t, "alive@11", stateOf(c, "x"), "it may speak up itself")
		}
	}
}

// hashicorp/memberlist#311, habitat-sh/habitat#5581: who was restarted begins again with incarnation 0. It learns from
// the first answer what was said of its earlier life, and outdoes it.
func TestRestartOutdoesItsEarlierLife(t *testing.T) {
	for _, s := range []membership.State{membership.Alive, membership.Suspect, membership.Unreachable, membership.Dead, membership.Left} {
		c := newTestCore(t, Config{})
		mustStep(t, c, view(says{id: "self", state: s, inc: 7, life: c.self.life + 1}))
		require.Equal(t, "alive@8", stateOf(c, "self"), s)
		require.Equal(t, uint64(1), c.Metrics().PastLives)
		require.NotNil(t, c.self.ext.change, "nobody is told")
	}
}

// SWIM, section 4.2: a member that hears that it is suspected spreads an Alive with a higher incarnation.
func TestPaper42RefutesSuspicion(t *testing.T) {
	c := newTestCore(t, Config{})
	mustStep(t, c, packet(says{id: "self", state: membership.Suspect, life: c.self.life}))
	require.Equal(t, "alive@1", stateOf(c, "self"))
	require.Equal(t, 1, c.Metrics().Health, "who is suspected may be slow itself")
	mustStep(t, c, packet(says{id: "self", state: membership.Suspect, life: c.self.life}))
	require.Equal(t, "alive@1", stateOf(c, "self"), "a late suspicion is refuted already")
	mustStep(t, c, packet(says{id: "self", state: membership.Dead, inc: maxIncarnation, life: c.self.life}))
	mustStep(t, c, packet(says{id: "self", state: membership.Dead, inc: maxIncarnation, life: c.self.life}))
	require.LessOrEqual(t, c.self.inc, uint32(maxIncarnation), "an incarnation that others refuse")
}

func drawSays(t *rapid.T) says {
	return says{
		id:    rapid.SampledFrom([]string{"x", "y"}).Draw(t, "id"),
		state: membership.State(rapid.IntRange(0, 4).Draw(t, "state")),
		inc:   uint32(rapid.IntRange(0, 3).Draw(t, "incarnation")),
		life:  uint32(rapid.IntRange(1, 2).Draw(t, "life")),
	}
}

// Whatever the order in which records come, and however often, the view is the same: the greatest of what was heard.
func TestViewIsAJoin(t *testing.T) {
	testsize.Checks(t, 300, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		heard := rapid.SliceOfN(rapid.Custom(drawSays), 1, 12).Draw(t, "heard")
		want := map[string]says{}
		for _, s := range heard {
			old, ok := want[s.id]
			if !ok || s.inc > old.inc || s.inc == old.inc && (s.life > old.life || s.life == old.life && s.state > old.state) {
				want[s.id] = s
			}
		}
		c := newTestCore(t, Config{})
		order := rapid.Permutation(append(heard, heard...)).Draw(t, "order")
		for _, s := range order {
			mustStep(t, c, packet(s))
		}
		for id, s := range want {
			m, ok := c.Member(coterie.NodeID(id))
			require.True(t, ok)
			require.Equal(t, []any{s.state, uint64(s.inc), s.life}, []any{m.State, m.Incarnation, m.Life})
		}
		requireInvariants(t, c)
	})
}

// requireInvariants checks what Core's comment promises, and the books against a count.
func requireInvariants(t require.TestingT, c *Core) {
	ups, hash, suspects := 0, uint64(0), 0
	for m := range c.table.all {
		id := m.id()
		require.Equal(t, m, c.table.get(id))
		if m.up() {
			ups++
			hash += m.hash()
			if m != c.self {
				require.NotZero(t, m.flags&inOrder, "%s is not probed", id)
			}
		}
		suspected := m.ext != nil && m.ext.suspicion != nil
		require.Equal(t, m.state == membership.Suspect, suspected, "%s is %v", id, m.state)
		if suspected {
			suspects++
			require.LessOrEqual(t, c.suspectAt, m.ext.suspicion.deadline)
		}
		if m.state == membership.Unreachable {
			require.NotZero(t, m.flags&inGone, "%s will not be tried again", id)
		}
	}
	require.Equal(t, []any{ups, hash, suspects}, []any{c.ups, c.hash, len(c.suspects)})
	require.Equal(t, c.self, c.table.get(string(c.cfg.ID)))
	require.True(t, c.self.state == membership.Alive || c.self.state == membership.Left)
	require.True(t, c.health >= 0 && c.health <= maxHealth)
}

// SWIM, section 4.1: whoever learns something new passes it on, and says goodbye in the same way.
func TestPaper41NewsIsPassedOn(t *testing.T) {
	c := newTestCore(t, Config{})
	for _, s := range []says{{id: "x", life: 1}, {id: "x", state: membership.Suspect, life: 1}, {id: "x", state: membership.Left, inc: 1, life: 1}} {
		mustStep(t, c, packet(s, says{id: "peer", life: 1}))
		change := c.table.get("x").ext.change
		require.NotNil(t, change, s.state)
		require.Zero(t, change.sent)
		c.Tick(start.Add(2 * time.Second))
	}
	c.Leave(start.Add(3 * time.Second))
	require.NotNil(t, c.self.ext.change)
}

// Lifeguard, section IV-B: the waiting goes from most to least with the logarithm of the confirmations.
func TestPaperIVBSuspicionTimeout(t *testing.T) {
	for confirmed, want := range []time.Duration{30, 17500 * time.Millisecond / time.Second, 10, 5, 5} {
		got := suspicionTimeout(5*time.Second, 30*time.Second, confirmed, 3)
		require.InDelta(t, float64(want), got.Seconds(), 1)
	}
	require.Equal(t, time.Second, suspicionTimeout(time.Second, time.Hour, 0, 0))
}

// Only other members' suspicions bring the end nearer, and each but once.
func TestConfirmationsAreOfDifferentMembers(t *testing.T) {
	c := newTestCore(t, Config{})
	for i := range 9 {
		mustStep(t, c, packet(says{id: fmt.Sprint("m", i), life: 1}))
	}
	suspect := func(by string) int64 {
		mustStep(t, c, packet(says{id: "m1", state: membership.Suspect, life: 1, by: by}))
		return c.table.get("m1").ext.suspicion.deadline
	}
	first := suspect("a")
	require.Equal(t, first, suspect("a"))
	second := suspect("b")
	require.Less(t, second, first)
	require.Equal(t, second, suspect("a"))
	require.Less(t, suspect("c"), second)
	least := suspect("d")
	require.Equal(t, c.table.get("m1").ext.suspicion.began+c.leastSuspicion(), least)
	require.Equal(t, least, suspect("e"), "never below the least")
}

func TestMalformedPacketsChangeNothing(t *testing.T) {
	c := newTestCore(t, Config{})
	good := append(packet(says{id: "x", life: 1}), kindPing, 5)
	for cut := 2; cut < len(good); cut++ {
		if cut == len(good)-2 { // where the record ends a packet may too
			continue
		}
		require.Error(t, c.Step(start, "peer", good[:cut]), "cut at %d", cut)
		require.Equal(t, "unknown", stateOf(c, "x"))
	}
	c.Ready()
	for name, bad := range map[string][]byte{
		"empty": {}, "format 0": {0}, "kind": {formatPlain, 99}, "state": says{id: "x", state: 9, life: 1}.append([]byte{formatPlain}),
		"no id":       {formatPlain, kindRecord, 0, 0},
		"incarnation": append([]byte{formatPlain, kindRecord, 0, 1, 'x'}, 0xff, 0xff, 0xff, 0xff, 0x0f),
	} {
		require.Error(t, c.Step(start, "peer", bad), name)
	}
	var newer *coterie.FormatError
	require.ErrorAs(t, c.Step(start, "peer", []byte{formatMax + 1}), &newer)
	require.Error(t, c.Step(start, "", good))
	require.Empty(t, c.Ready().Send)
	require.NoError(t, c.Step(start, "peer", good))
	require.Error(t, c.Replay([]byte{1}))
}

func TestConfigNamesTheField(t *testing.T) {
	good := Config{ID: "a", Seed: 1}
	_, err := NewCore(good)
	require.NoError(t, err)
	for field, change := range map[string]func(*Config){
		"ID is required": func(c *Config) { c.ID = "" },
		"ID is longer":   func(c *Config) { c.ID = coterie.NodeID(make([]byte, 300)) },
		"Seed":           func(c *Config) { c.Seed = 0 },
		"Address":        func(c *Config) { c.Address = string(make([]byte, 300)) },
		"Seeds":          func(c *Config) { c.Seeds = []coterie.NodeID{""} },
		"Meta":           func(c *Config) { c.Meta = make([]byte, MaxMeta+1) },
		"Keys":           func(c *Config) { c.Keys = [][]byte{make([]byte, 15)} },
		"ProbeInterval":  func(c *Config) { c.ProbeInterval = -1 },
		"ProbeTimeout":   func(c *Config) { c.ProbeTimeout = time.Second },
		"SuspicionMult":  func(c *Config) { c.SuspicionMult = -1 },
		"SyncInterval":   func(c *Config) { c.SyncInterval = -1 },
		"RetryInterval":  func(c *Config) { c.RetryInterval = -1 },
		"ForgetAfter":    func(c *Config) { c.ForgetAfter = -1 },
		"MaxPacket":      func(c *Config) { c.MaxPacket = 100 },
	} {
		cfg := good
		change(&cfg)
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, "Config."+field)
	}
	_, err = Start(good)
	require.ErrorContains(t, err, "Config.Transport")
}

func TestGoldenPacket(t *testing.T) {
	b := packet(
		says{id: "node-a", state: membership.Alive, inc: 3, life: 0x01020304, addr: "10.0.0.1:7946", meta: "zone=1"},
		says{id: "node-b", state: membership.Suspect, inc: 300, life: 7, by: "node-a"},
		says{id: "node-c", state: membership.Left, life: 9, meta: string(make([]byte, 1000))},
	)
	b = appendProbe(b, kindPing, 1000)
	b = appendPingReq(b, 1001, "node-d")
	b = appendProbe(appendProbe(b, kindAck, 1), kindNack, 2)
	b = appendUser(b, "node-a", 0x01020304, 5, []byte("hello"))
	b = appendMetaPart(appendMetaGet(b, "node-c", 0xfeed, 512), "node-c", 0xfeed, 512, "part")
	b = append(b, kindDigest, 1, 2, 3, 4, 5, 6, 7, 8)
	b = appendPadded(b, kindAck, 77, 3)
	sealed := newTestCore(t, Config{Keys: [][]byte{make([]byte, 16)}}).seal("peer", []byte("messages"))
	golden(t, "packet.hex", b)
	golden(t, "sealed.hex", sealed)
	_, err := decode(nil, b[1:])
	require.NoError(t, err)
}

func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got := hex.EncodeToString(b) + "\n"
	if os.Getenv("COTERIE_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "the format changed: raise its byte")
}

func FuzzPacket(f *testing.F) {
	f.Add(packet(says{id: "x", life: 1, addr: "a:1", meta: "m"}, says{id: "y", state: membership.Suspect}))
	f.Add(view(says{id: "self", state: membership.Dead, inc: 5}))
	f.Add(appendPingReq([]byte{formatPlain}, 1, "x"))
	f.Add(appendUser([]byte{formatPlain}, "x", 1, 1, []byte("hello")))
	f.Add(appendMetaPart(appendMetaGet([]byte{formatPlain}, "x", 1, 2), "x", 1, 0, "part"))
	f.Add([]byte{formatSealed, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newTestCore(t, Config{})
		mustStep(t, c, packet(says{id: "x", life: 1}, says{id: "y", life: 1, meta: string(make([]byte, 2000))}))
		before := c.Members()
		if c.Step(start.Add(2*time.Second), "peer", b) != nil {
			require.Equal(t, before, c.Members(), "a malformed packet changed something")
		}
		for i := range 40 {
			c.Tick(start.Add(time.Duration(2+i) * time.Second))
			for _, e := range c.Ready().Send {
				_, err := decode(nil, e.Payload[1:])
				require.NoError(t, err, "a packet that others refuse")
			}
			requireInvariants(t, c)
		}
	})
}

func TestSealing(t *testing.T) {
	key := func(s string) []byte { k := sha256.Sum256([]byte(s)); return k[:] }
	a := newTestCore(t, Config{ID: "a", Keys: [][]byte{key("old")}})
	b := newTestCore(t, Config{ID: "b", Seed: 2, Keys: [][]byte{key("old")}})
	ping := func(from, to *Core) error {
		from.begin()
		from.packet = appendProbe(from.packet, kindPing, 1)
		return to.Step(start, from.cfg.ID, from.seal(to.cfg.ID, from.packet))
	}
	require.NoError(t, ping(a, b))
	// Rotation: new keys are known before they are used, old ones as long as they are.
	require.NoError(t, a.SetKeys(key("old"), key("new")))
	require.NoError(t, ping(a, b))
	require.NoError(t, b.SetKeys(key("new"), key("old")))
	require.NoError(t, ping(b, a))
	require.NoError(t, a.SetKeys(key("new")))
	require.NoError(t, ping(a, b))
	require.NoError(t, b.SetKeys(key("other")))
	require.ErrorIs(t, ping(a, b), errNoKey)
	require.Error(t, b.SetKeys([]byte("short")))
	require.ErrorIs(t, ping(a, b), errNoKey, "keys that are none replace none")

	require.NoError(t, b.SetKeys(key("new")))
	sealed := a.seal("b", appendProbe(nil, kindPing, 1))
	require.NoError(t, b.Step(start, "a", sealed))
	require.ErrorIs(t, b.Step(start, "c", sealed), errNoKey, "another sender")
	other := newTestCore(t, Config{ID: "other", Seed: 3, Keys: [][]byte{key("new")}})
	require.ErrorIs(t, other.Step(start, "a", sealed), errNoKey, "another receiver")
	for i := 1; i < len(sealed); i++ {
		flipped := append([]byte(nil), sealed...)
		flipped[i] ^= 1
		require.Error(t, b.Step(start, "a", flipped))
	}
	require.ErrorIs(t, b.Step(start, "a", appendProbe([]byte{formatPlain}, kindPing, 1)), errUnsealed)
	require.NotZero(t, b.Metrics().Unauthentic)
	require.Error(t, newTestCore(t, Config{}).Step(start, "a", sealed), "a member without keys")
}

// No nonce is used twice: not by one member, beyond 2^32 packets either, nor by two whose seeds differ.
func TestNoncesDiffer(t *testing.T) {
	seen := map[[nonceSize]byte]bool{}
	for seed := range uint64(200) {
		for _, from := range []uint64{0, 1<<32 - 5, 5<<32 - 5} {
			n := nonces{seed: seed + 1, count: from}
			for range 10 {
				nonce := n.next()
				require.False(t, seen[nonce])
				seen[nonce] = true
			}
		}
	}
}

// The window agrees with a set of all numbers seen.
func TestWindow(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var w window
	seen, high := map[uint64]bool{}, uint64(0)
	for range testsize.N(20_000, 1_000_000) {
		n := uint64(max(0, int(high)+rng.IntN(600)-400))
		if rng.IntN(500) == 0 {
			n += uint64(rng.IntN(2000))
		}
		want := n > 0 && !seen[n] && n+256 > high
		require.Equal(t, want, w.add(n), "%d after %d", n, high)
		if want {
			seen[n], high = true, max(high, n)
		}
	}
}

// What was sent least often goes first, each piece once a packet and limit times in all.
func TestQueueIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		all := make([]*change, rapid.IntRange(1, 20).Draw(t, "changes"))
		for i := range all {
			all[i] = &change{body: make([]byte, 1)}
			q.push(all[i])
		}
		limit := rapid.IntRange(1, 8).Draw(t, "limit")
		for done := 0; done < len(all); {
			room := rapid.IntRange(1, 20).Draw(t, "room")
			var sent []*change
			q.take(limit, func(ch *change) bool {
				if len(sent) == room {
					return false
				}
				require.False(t, slices.Contains(sent, ch))
				sent = append(sent, ch)
				return true
			}, func(*change) { done++ })
			least, most := limit, 0
			for _, ch := range all {
				least, most = min(least, ch.sent), max(most, ch.sent)
			}
			require.LessOrEqual(t, most-least, 1)
			if len(sent) == 0 {
				break
			}
		}
		require.Zero(t, q.count)
		require.Zero(t, q.bytes)
	})
}

// The index agrees with a map.
func TestIndexIsAMap(t *testing.T) {
	testsize.Checks(t, 100, 5000)
	rapid.Check(t, func(t *rapid.T) {
		var x index
		want := map[string]*member{}
		for range rapid.IntRange(1, 200).Draw(t, "operations") {
			id := fmt.Sprint(rapid.IntRange(0, 40).Draw(t, "id"))
			switch m := want[id]; {
			case m == nil:
				require.Nil(t, x.get(id))
				m = &member{}
				m.setText(id, "", "")
				x.add(m)
				want[id] = m
			case rapid.Bool().Draw(t, "remove"):
				x.remove(m)
				delete(want, id)
			}
			require.Equal(t, len(want), x.count)
			for id, m := range want {
				require.Same(t, m, x.get(id))
			}
		}
	})
}
