package tcp

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/stretchr/testify/require"
)

// nobody is an address at which no one answers: port 1 on the loopback.
const nobody = "127.0.0.1:1"

func mustStart(t *testing.T, cfg Config) *Transport {
	t.Helper()
	if cfg.Listen == "" && cfg.Listener == nil {
		cfg.Listen = "127.0.0.1:0"
	}
	node, err := Start(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Close()) })
	return node
}

func mustCA(t *testing.T) *transport.ThrowawayCA {
	t.Helper()
	ca, err := transport.NewThrowawayCA()
	require.NoError(t, err)
	return ca
}

func mustIdentity(t *testing.T, ca *transport.ThrowawayCA, id coterie.NodeID) *transport.Identity {
	t.Helper()
	identity, err := ca.Identity(id)
	require.NoError(t, err)
	return identity
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !condition(); <-tick.C {
		require.True(t, time.Now().Before(end), what)
	}
}

// victim is a node under attack, and a peer that it must go on to talk with.
type victim struct {
	*Transport
	friend *Transport
	got    chan string
}

func newVictim(t *testing.T, cfg Config) victim {
	t.Helper()
	cfg.ID = "victim"
	cfg.Peers = map[coterie.NodeID]string{"friend": nobody, "enemy": nobody}
	v := victim{Transport: mustStart(t, cfg), got: make(chan string, 10_000)}
	v.Receive(func(from coterie.NodeID, payload []byte) { v.got <- string(from) + ":" + string(payload) })
	return v
}

// befriend starts the friend, with an identity of its own if the victim has one.
func (v *victim) befriend(t *testing.T, identity *transport.Identity) {
	t.Helper()
	v.friend = mustStart(t, Config{
		ID: "friend", Peers: map[coterie.NodeID]string{"victim": v.Addr().String()}, Identity: identity,
	})
	v.undisturbed(t)
}

// undisturbed checks that the friend's messages arrive, and nothing else has.
func (v *victim) undisturbed(t *testing.T) {
	t.Helper()
	require.NoError(t, v.friend.Send("victim", []byte("hello")))
	select {
	case got := <-v.got:
		require.Equal(t, "friend:hello", got)
	case <-time.After(20 * time.Second):
		t.Fatal("the friend's message does not arrive")
	}
	require.Zero(t, v.friend.Metrics().Broken)
}

// attack connects to the victim as whom it likes.
func (v *victim) attack(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", v.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// enter says hello and reads the answer.
func enter(t *testing.T, conn net.Conn, from, to coterie.NodeID) welcome {
	t.Helper()
	_, err := conn.Write(newFrame(kindHello, hello{from, to}.encode()))
	require.NoError(t, err)
	kind, payload, err := (&frameReader{from: conn, limit: maxHello}).next()
	require.NoError(t, err)
	require.Equal(t, kindWelcome, kind)
	w, err := decodeWelcome(payload)
	require.NoError(t, err)
	return w
}

// requireCutOff checks that the other side closes the connection.
func requireCutOff(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err := io.Copy(io.Discard, conn)
	require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "the connection was not closed")
}

func TestStrangerIsRefused(t *testing.T) {
	v := newVictim(t, Config{})
	v.befriend(t, nil)
	stranger := mustStart(t, Config{ID: "stranger", Peers: map[coterie.NodeID]string{"victim": v.Addr().String()}})
	require.NoError(t, stranger.Send("victim", []byte("let me in")))
	eventually(t, "the stranger is counted", func() bool { return v.Metrics().Strangers > 0 })
	eventually(t, "the stranger learns of it", func() bool { return stranger.Metrics().DialErrors > 0 })
	conn := v.attack(t)
	require.Contains(t, enter(t, conn, "stranger", "victim").refusal, "not among the peers")
	requireCutOff(t, conn)
	v.undisturbed(t)
	require.Zero(t, stranger.Metrics().Sent)

	require.NoError(t, v.SetPeer("stranger", nobody))
	require.Equal(t, "stranger:let me in", <-v.got, "once it is a peer it gets in by itself")
}

func TestPeerThatLooksForAnotherNodeIsRefused(t *testing.T) {
	v := newVictim(t, Config{})
	v.befriend(t, nil)
	conn := v.attack(t)
	require.Contains(t, enter(t, conn, "enemy", "elsewhere").refusal, "not elsewhere")
	requireCutOff(t, conn)
	require.Equal(t, uint64(1), v.Metrics().Strangers)
	v.undisturbed(t)
}

func TestAcceptUnknown(t *testing.T) {
	ca := mustCA(t)
	v := newVictim(t, Config{AcceptUnknown: true, Identity: mustIdentity(t, ca, "victim")})
	v.befriend(t, mustIdentity(t, ca, "friend"))
	newcomer := mustStart(t, Config{
		ID: "newcomer", Peers: map[coterie.NodeID]string{"victim": v.Addr().String()}, Identity: mustIdentity(t, ca, "newcomer"),
	})
	require.NoError(t, newcomer.Send("victim", []byte("hello")))
	require.Equal(t, "newcomer:hello", <-v.got)
}

func TestWrongCertificateIsRefused(t *testing.T) {
	ca, other := mustCA(t), mustCA(t)
	v := newVictim(t, Config{Identity: mustIdentity(t, ca, "victim")})
	v.befriend(t, mustIdentity(t, ca, "friend"))
	trusting := func(i *transport.Identity) *tls.Config {
		c := i.ClientTLS("victim")
		c.VerifyConnection = nil
		return c
	}
	noCertificate := trusting(mustIdentity(t, ca, "enemy"))
	noCertificate.Certificates = nil
	old := trusting(mustIdentity(t, ca, "enemy"))
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, c := range []struct {
		what string
		tls  *tls.Config
	}{
		{"of another authority", trusting(mustIdentity(t, other, "enemy"))},
		{"of another node", trusting(mustIdentity(t, ca, "somebody"))},
		{"none", noCertificate},
		{"TLS 1.2", old},
		{"no TLS", nil},
	} {
		before := v.Metrics().BadCertificates
		raw := v.attack(t)
		conn := raw
		if c.tls != nil {
			conn = tls.Client(raw, c.tls)
		}
		_, _ = conn.Write(newFrame(kindHello, hello{"enemy", "victim"}.encode()))
		_, _ = conn.Write(newFrame(kindData, []byte("evil")))
		requireCutOff(t, raw)
		eventually(t, c.what, func() bool { return v.Metrics().BadCertificates == before+1 })
		v.undisturbed(t)
	}
}

// A node that dials must not talk to who answers at the address, but to the node it means.
func TestImpostorAtThePeersAddress(t *testing.T) {
	ca := mustCA(t)
	impostor := mustStart(t, Config{ID: "b", Identity: mustIdentity(t, mustCA(t), "b"), Peers: map[coterie.NodeID]string{"a": nobody}})
	wrong := mustStart(t, Config{ID: "c", Identity: mustIdentity(t, ca, "c"), Peers: map[coterie.NodeID]string{"a": nobody}})
	for _, at := range []*Transport{impostor, wrong} {
		at.Receive(func(coterie.NodeID, []byte) { t.Error("the secret got out") })
		a := mustStart(t, Config{
			ID: "a", Identity: mustIdentity(t, ca, "a"), Peers: map[coterie.NodeID]string{"b": at.Addr().String()},
		})
		require.NoError(t, a.Send("b", []byte("secret")))
		eventually(t, "the certificate is refused", func() bool { return a.Metrics().DialErrors >= 2 })
		require.Zero(t, a.Metrics().Sent)
	}
}

// A length that nobody means to send is refused before anything is allocated for it.
func TestFrameOf4GiBIsRefused(t *testing.T) {
	v := newVictim(t, Config{})
	v.befriend(t, nil)
	header := newFrame(kindData, nil)
	for _, length := range []uint32{1<<32 - 1, 8<<20 + 1} {
		conn := v.attack(t)
		require.Empty(t, enter(t, conn, "enemy", "victim").refusal)
		before := v.Metrics().TooLarge
		binary.BigEndian.PutUint32(header[2:], length)
		_, err := conn.Write(header)
		require.NoError(t, err)
		requireCutOff(t, conn)
		eventually(t, "it is counted", func() bool { return v.Metrics().TooLarge == before+1 })
		v.undisturbed(t)
	}
}

// A length within the limit, of a frame that does not come, costs no more than what did come.
func TestClaimedLengthAllocatesLittle(t *testing.T) {
	header := newFrame(kindData, nil)
	binary.BigEndian.PutUint32(header[2:], 64<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := frameReader{from: bytes.NewReader(append(header, make([]byte, 1000)...)), limit: 64 << 20}
	_, _, err := r.next()
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

func TestGarbageIsCutOff(t *testing.T) {
	v := newVictim(t, Config{})
	v.befriend(t, nil)
	corrupt := newFrame(kindData, []byte("payload"))
	corrupt[len(corrupt)-1] ^= 1
	corruptKind := newFrame(kindPing, nil)
	corruptKind[1] = byte(kindData)
	newer := newFrame(kindData, nil)
	newer[0] = frameFormat + 1
	for _, c := range []struct {
		what    string
		entered bool
		data    []byte
	}{
		{"noise in place of hello", false, bytes.Repeat([]byte{0xa5}, 100)},
		{"HTTP in place of hello", false, []byte("GET / HTTP/1.1\r\n\r\n")},
		{"a payload before hello", false, newFrame(kindData, []byte("evil"))},
		{"a hello that is none", false, newFrame(kindHello, []byte{200, 1})},
		{"a hello from nobody", false, newFrame(kindHello, hello{"", "victim"}.encode())},
		{"noise", true, bytes.Repeat([]byte{0xa5}, 100)},
		{"a wrong checksum", true, corrupt},
		{"a changed kind", true, corruptKind},
		{"an unknown kind", true, newFrame(9, nil)},
		{"a second hello", true, newFrame(kindHello, hello{"enemy", "victim"}.encode())},
		{"a pong", true, newFrame(kindPong, nil)},
		{"a newer format", true, newer},
	} {
		before := v.Metrics().BadFrames
		conn := v.attack(t)
		if c.entered {
			require.Empty(t, enter(t, conn, "enemy", "victim").refusal)
		}
		_, err := conn.Write(c.data)
		require.NoError(t, err)
		requireCutOff(t, conn)
		eventually(t, c.what, func() bool { return v.Metrics().BadFrames == before+1 })
		v.undisturbed(t)
	}
}

// Connections without a word give way to newer ones: who holds many open does not keep a peer out.
func TestSilentConnectionsGiveWay(t *testing.T) {
	v := newVictim(t, Config{MaxHandshakes: 4})
	var silent []net.Conn
	for range 20 {
		silent = append(silent, v.attack(t))
	}
	v.befriend(t, nil)
	requireCutOff(t, silent[0])
	eventually(t, "they are counted", func() bool { return v.Metrics().OverLimit >= 16 })
	require.LessOrEqual(t, v.Metrics().OverLimit, uint64(20))
}

func TestConnectionsOverTheLimitAreRefused(t *testing.T) {
	v := newVictim(t, Config{MaxConns: 2, AcceptUnknown: true})
	v.befriend(t, nil)
	enemy, third := v.attack(t), v.attack(t)
	require.Empty(t, enter(t, enemy, "enemy", "victim").refusal)
	require.Contains(t, enter(t, third, "third", "victim").refusal, "too many")
	requireCutOff(t, third)
	eventually(t, "it is counted", func() bool { return v.Metrics().OverLimit == 1 })
	require.Equal(t, 2, v.Metrics().Connected)
	v.undisturbed(t)
	require.NoError(t, enemy.Close())
	eventually(t, "there is room again", func() bool { return v.Metrics().Connected == 1 })
	require.Empty(t, enter(t, v.attack(t), "third", "victim").refusal)
}

// A peer has one connection to a node. The newest counts: of the one before, the peer may know nothing any more.
func TestNewerConnectionReplacesOlder(t *testing.T) {
	v := newVictim(t, Config{})
	v.befriend(t, nil)
	older, newer := v.attack(t), v.attack(t)
	require.Empty(t, enter(t, older, "enemy", "victim").refusal)
	require.Empty(t, enter(t, newer, "enemy", "victim").refusal)
	requireCutOff(t, older)
	_, err := newer.Write(newFrame(kindData, []byte("still there")))
	require.NoError(t, err)
	require.Equal(t, "enemy:still there", <-v.got)
	require.Equal(t, uint64(1), v.Metrics().Replaced)
	require.Equal(t, 2, v.Metrics().Connected)
	v.undisturbed(t)
}

// acceptAs answers one connection to a listener as the node would, and returns it.
func acceptAs(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, _, err = (&frameReader{from: conn, limit: maxHello}).next()
	require.NoError(t, err)
	_, err = conn.Write(newFrame(kindWelcome, welcome{}.encode()))
	require.NoError(t, err)
	return conn
}

// A peer that does not read costs its queue, of which the oldest is dropped, and nobody waits for it.
func TestSlowReaderLosesTheOldest(t *testing.T) {
	slow, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer slow.Close()
	const limit = 1 << 20
	v := newVictim(t, Config{MaxPayload: 1000, QueueBytes: limit})
	v.befriend(t, nil)
	require.NoError(t, v.SetPeer("slow", slow.Addr().String()))
	payload := make([]byte, 1000)
	require.NoError(t, v.Send("slow", payload))
	conn := acceptAs(t, slow)

	last := uint64(0)
	eventually(t, "the queue overflows", func() bool {
		for range 10_000 {
			last++
			binary.BigEndian.PutUint64(payload, last)
			require.NoError(t, v.Send("slow", append([]byte(nil), payload...)))
		}
		return v.Metrics().Dropped > 5000
	})
	v.undisturbed(t)

	m := v.Metrics()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	r, n, before := frameReader{from: conn, limit: 1000}, uint64(0), uint64(0)
	for before < last {
		kind, got, err := r.next()
		require.NoError(t, err)
		if kind == kindData {
			n++
			number := binary.BigEndian.Uint64(got)
			require.True(t, n == 1 || number > before, "%d after %d", number, before)
			before = number
		}
	}
	require.Equal(t, 1+last, n+m.Dropped, "what was not dropped arrived")
	require.Greater(t, v.Metrics().Sent, 3*v.Metrics().Writes, "messages share writes")
}

// Attacks, refusals and restarts leave neither goroutines nor descriptors behind.
func TestNothingLeaks(t *testing.T) {
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	for _, test := range []func(t *testing.T){
		TestStrangerIsRefused, TestWrongCertificateIsRefused, TestImpostorAtThePeersAddress, TestFrameOf4GiBIsRefused,
		TestGarbageIsCutOff, TestSilentConnectionsGiveWay, TestNewerConnectionReplacesOlder, TestSlowReaderLosesTheOldest,
	} {
		t.Run("", test)
	}
	eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "descriptors are left", func() bool { return openDescriptors(t) <= descriptors })
}

// openDescriptors counts the file descriptors of this process, where that can be done.
func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// The handler is called for one connection of a peer at a time, also when a newer one takes over within a call.
func TestNewerConnectionWaitsForTheHandler(t *testing.T) {
	v := newVictim(t, Config{})
	entered, release := make(chan string, 10), make(chan struct{})
	v.Receive(func(_ coterie.NodeID, payload []byte) {
		entered <- string(payload)
		<-release // what no handler should do
	})
	older, newer := v.attack(t), v.attack(t)
	require.Empty(t, enter(t, older, "enemy", "victim").refusal)
	_, err := older.Write(newFrame(kindData, []byte("older")))
	require.NoError(t, err)
	require.Equal(t, "older", <-entered)
	require.Empty(t, enter(t, newer, "enemy", "victim").refusal)
	_, err = newer.Write(newFrame(kindData, []byte("newer")))
	require.NoError(t, err)
	newest := v.attack(t)
	require.Empty(t, enter(t, newest, "enemy", "victim").refusal)
	_, err = newest.Write(append(newFrame(kindData, []byte("newest")), ping...))
	require.NoError(t, err)
	require.Equal(t, uint64(1), v.Metrics().Accepted, "the others wait")
	require.Empty(t, entered)
	close(release)
	require.Equal(t, "newest", <-entered, "one that was replaced while it waited is not read")
}
