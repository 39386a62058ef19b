package rpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/internal/frame"
)

type netConn = net.Conn

// attack connects to a server and sends bytes; it returns when the server has cut the connection.
func attack(t *testing.T, addr string, b ...[]byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	_, _ = conn.Write(bytes.Join(b, nil))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = io.Copy(io.Discard, conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection was not closed")
}

func requestFrame(q request) []byte {
	return frame.New(kindRequest, append(q.appendHead(nil), q.payload...))
}

func TestGarbageIsCutOffAndCounted(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	Handle(s, "echo", echo)
	HandleStream(s, "hang", func(ctx context.Context, _ *Stream[[]byte, []byte]) error {
		<-ctx.Done()
		return ctx.Err()
	})
	addr := mustListen(t, s)
	friend := newTestClient(t, ClientConfig{Addr: addr})
	corrupt := requestFrame(request{id: 1, method: []byte("echo")})
	corrupt[len(corrupt)-1] ^= 1
	newer := bytes.Clone(helloFrame)
	newer[0]++
	stream := requestFrame(request{id: 1, method: []byte("hang"), window: 100})
	hanging := [][]byte{helloFrame, stream}
	for _, c := range []struct {
		what string
		data [][]byte
	}{
		{"noise", [][]byte{bytes.Repeat([]byte{0xa5}, 100)}},
		{"HTTP", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}},
		{"a newer format", [][]byte{newer}},
		{"a request before hello", [][]byte{requestFrame(request{id: 1, method: []byte("echo")})}},
		{"a hello that is none", [][]byte{frame.New(kindHello, []byte{200, 1})}},
		{"a wrong checksum", [][]byte{helloFrame, corrupt}},
		{"a second hello", [][]byte{helloFrame, helloFrame}},
		{"a response", [][]byte{helloFrame, frame.New(kindResponse, []byte{1, 0})}},
		{"an unknown kind", [][]byte{helloFrame, frame.New(15, nil)}},
		{"a request that is none", [][]byte{helloFrame, frame.New(kindRequest, []byte{1, 3, 200})}},
		{"a tag that is none", [][]byte{helloFrame, requestFrame(request{id: 1, method: []byte("echo"), tag: tag{1, 1, 2}})}},
		{"a call of the same number", append(hanging, stream)},
		{"no credit at all", append(hanging, frame.New(kindCredit, []byte{1, 0}))},
		{"credit without end", append(hanging, frame.New(kindCredit, binary.AppendUvarint([]byte{1}, 1<<60)))},
		{"messages beyond the window", append(hanging, bytes.Repeat(frame.New(kindMessage, append([]byte{1}, make([]byte, 100<<10)...)), 3))},
		{"a message after the end", append(hanging, frame.New(kindEnd, []byte{1}), frame.New(kindMessage, []byte{1}))},
	} {
		before := s.Metrics().BadFrames
		attack(t, addr, c.data...)
		eventually(t, c.what, func() bool { return s.Metrics().BadFrames == before+1 })
		got, err := Call[[]byte, []byte](t.Context(), friend, "echo", []byte("hello"))
		require.NoError(t, err, c.what)
		require.Equal(t, "hello", string(got))
	}
	require.Zero(t, friend.Metrics().Broken)
	eventually(t, "the streams end", func() bool { return s.Metrics().Methods["hang"].Running == 0 })
}

func TestOversizedFrameIsRefused(t *testing.T) {
	s := newTestServer(t, ServerConfig{MaxMessage: 1000})
	Handle(s, "echo", echo)
	addr := mustListen(t, s)
	header := frame.New(kindRequest, nil)
	for _, length := range []uint32{1<<32 - 1, 1000 + maxOverhead + 1} {
		before := s.Metrics().TooLarge
		binary.BigEndian.PutUint32(header[2:], length)
		attack(t, addr, helloFrame, header)
		eventually(t, "it is counted", func() bool { return s.Metrics().TooLarge == before+1 })
	}
	c := newTestClient(t, ClientConfig{Addr: addr})
	before := s.Metrics().TooLarge
	_, err := Call[[]byte, []byte](t.Context(), c, "echo", make([]byte, 1001))
	require.ErrorIs(t, err, ErrTooLarge, "one that fits the frame is answered")
	require.Equal(t, before+1, s.Metrics().TooLarge)
}

func TestWhoSaysNothingIsCutOff(t *testing.T) {
	s := newTestServer(t, ServerConfig{HandshakeTimeout: 20 * time.Millisecond, MaxHandshakes: 2})
	addr := mustListen(t, s)
	attack(t, addr)
	eventually(t, "it is counted", func() bool { return s.Metrics().HandshakeTimeouts == 1 })
	s.mu.Lock()
	s.greeting = 2 // as many as may be
	s.mu.Unlock()
	attack(t, addr)
	require.Equal(t, uint64(1), s.Metrics().OverLimit)
	s.mu.Lock()
	s.greeting = 0
	s.mu.Unlock()
}

func mustIdentity(t *testing.T, ca *transport.ThrowawayCA, id coterie.NodeID) *transport.Identity {
	t.Helper()
	identity, err := ca.Identity(id)
	require.NoError(t, err)
	return identity
}

// expired is an authority, and the identity of a node whose certificate was good until an hour ago.
func expired(t *testing.T, id string) *transport.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, DNSNames: []string{id},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &transport.Identity{Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, Roots: roots}
}

func TestCertificatesAreChecked(t *testing.T) {
	ca, other := mustCA(t), mustCA(t)
	old := expired(t, "client")
	trusted := mustIdentity(t, ca, "server")
	trusted.Roots = trusted.Roots.Clone()
	trusted.Roots.AddCert(old.Certificate.Leaf) // so that only its age is wrong
	s := newTestServer(t, ServerConfig{ID: "server", Identity: trusted})
	Handle(s, "peer", func(ctx context.Context, _ int) (string, error) { return string(Peer(ctx)), nil })
	addr := mustListen(t, s)
	call := func(id, peer coterie.NodeID, identity *transport.Identity) (string, error) {
		c := newTestClient(t, ClientConfig{Addr: addr, ID: id, Peer: peer, Identity: identity})
		return Call[int, string](t.Context(), c, "peer", 0)
	}
	who, err := call("client", "server", mustIdentity(t, ca, "client"))
	require.NoError(t, err)
	require.Equal(t, "client", who)

	bad := func() uint64 { return s.Metrics().BadCertificates }
	good, err := ca.Identity("client")
	require.NoError(t, err)
	old.Roots = good.Roots
	_, err = call("client", "server", old)
	require.ErrorIs(t, err, ErrUnreachable)
	eventually(t, "an expired certificate", func() bool { return bad() == 1 })
	stranger := mustIdentity(t, other, "client")
	stranger.Roots = good.Roots
	_, err = call("client", "server", stranger)
	require.ErrorIs(t, err, ErrUnreachable)
	eventually(t, "of another authority", func() bool { return bad() == 2 })
	_, err = call("client", "", nil)
	require.ErrorIs(t, err, ErrUnreachable)
	eventually(t, "no TLS", func() bool { return bad() == 3 })

	// A valid certificate of another node, by a client that does not check itself.
	raw, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	conn := tls.Client(raw, mustIdentity(t, ca, "somebody").ClientTLS("server"))
	_, err = conn.Write(frame.New(kindHello, hello{from: "client"}.encode()))
	require.NoError(t, err)
	_, body, err := (&frame.Reader{From: conn, Limit: maxHello}).Next()
	require.NoError(t, err)
	refused, err := decodeWelcome(body)
	require.NoError(t, err)
	require.Contains(t, refused.refusal, "does not name the node")
	eventually(t, "the wrong name", func() bool { return bad() == 4 })
	require.NoError(t, conn.Close())

	_, err = call("client", "elsewhere", mustIdentity(t, ca, "client"))
	require.ErrorIs(t, err, transport.ErrIdentity, "the client knows whom it wants to talk to")
	plain := newTestServer(t, ServerConfig{ID: "plain"})
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, plain), Peer: "elsewhere"})
	_, err = Call[int, string](t.Context(), c, "peer", 0)
	require.ErrorContains(t, err, "not the node looked for")
	require.Equal(t, uint64(1), plain.Metrics().Strangers)

	_, err = NewServer(ServerConfig{ID: "other", Identity: good})
	require.ErrorIs(t, err, transport.ErrIdentity)
	_, err = NewClient(ClientConfig{Addr: addr, ID: "other", Peer: "server", Identity: good})
	require.ErrorIs(t, err, transport.ErrIdentity)
}

func mustCA(t *testing.T) *transport.ThrowawayCA {
	t.Helper()
	ca, err := transport.NewThrowawayCA()
	require.NoError(t, err)
	return ca
}
