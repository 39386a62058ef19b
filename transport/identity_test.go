package transport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/stretchr/testify/require"
)

func mustIdentity(t *testing.T, ca *transport.ThrowawayCA, id coterie.NodeID) *transport.Identity {
	t.Helper()
	i, err := ca.Identity(id)
	require.NoError(t, err)
	return i
}

func mustCA(t *testing.T) *transport.ThrowawayCA {
	t.Helper()
	ca, err := transport.NewThrowawayCA()
	require.NoError(t, err)
	return ca
}

func TestCheckCertificate(t *testing.T) {
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return []*url.URL{u}
	}
	for _, c := range []struct {
		what string
		cert x509.Certificate
		id   coterie.NodeID
		ok   bool
	}{
		{"dns", x509.Certificate{DNSNames: []string{"x", "a.example"}}, "a.example", true},
		{"uri", x509.Certificate{URIs: uri("coterie:a")}, "a", true},
		{"uri, encoded", x509.Certificate{URIs: uri("coterie:a%2Fb%20c")}, "a/b c", true},
		{"uri, not decoded twice", x509.Certificate{URIs: uri("coterie:a%252Fb")}, "a/b", false},
		{"uri, encoded form is not the id", x509.Certificate{URIs: uri("coterie:a%2Fb")}, "a%2Fb", false},
		{"common name", x509.Certificate{Subject: pkix.Name{CommonName: "a"}}, "a", false},
		{"wildcard", x509.Certificate{DNSNames: []string{"*.example"}}, "a.example", false},
		{"case", x509.Certificate{DNSNames: []string{"A"}}, "a", false},
		{"suffix", x509.Certificate{DNSNames: []string{"a.example"}}, "a", false},
		{"scheme", x509.Certificate{URIs: uri("spiffe:a")}, "a", false},
		{"authority", x509.Certificate{URIs: uri("coterie://a")}, "a", false},
		{"query", x509.Certificate{URIs: uri("coterie:a?b")}, "a", false},
		{"fragment", x509.Certificate{URIs: uri("coterie:a#b")}, "a", false},
		{"address", x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, "127.0.0.1", false},
		{"empty id", x509.Certificate{DNSNames: []string{""}}, "", false},
		{"nothing", x509.Certificate{}, "a", false},
	} {
		err := transport.CheckCertificate(&c.cert, c.id)
		if c.ok {
			require.NoError(t, err, c.what)
		} else {
			require.ErrorIs(t, err, transport.ErrIdentity, c.what)
		}
	}
}

// handshake connects a client that wants to reach want to a server, and returns both errors. The client reads a byte
// that the server writes, for in TLS 1.3 it learns of the server's refusal only then.
func handshake(t *testing.T, client *tls.Config, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	// A net.Pipe has no buffer: two sides that both want to write an alert would wait for each other.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	here, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	there, err := listener.Accept()
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer there.Close()
		conn := tls.Server(there, server)
		if serverErr = conn.HandshakeContext(context.Background()); serverErr == nil {
			state = conn.ConnectionState()
			_, serverErr = conn.Write([]byte{1})
		}
	}()
	conn := tls.Client(here, client)
	if clientErr = conn.HandshakeContext(context.Background()); clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	here.Close()
	<-done
	return state, clientErr, serverErr
}

func TestIdentityHandshake(t *testing.T) {
	ca, other := mustCA(t), mustCA(t)
	a, b := mustIdentity(t, ca, "a"), mustIdentity(t, ca, "b/1")
	state, clientErr, serverErr := handshake(t, a.ClientTLS("b/1"), b.ServerTLS())
	require.NoError(t, clientErr)
	require.NoError(t, serverErr)
	require.Equal(t, uint16(tls.VersionTLS13), state.Version)
	require.NoError(t, transport.CheckPeer(state, "a"))
	require.ErrorIs(t, transport.CheckPeer(state, "b/1"), transport.ErrIdentity)
	require.ErrorIs(t, transport.CheckPeer(tls.ConnectionState{}, "a"), transport.ErrIdentity)

	t.Run("the client reached another node", func(t *testing.T) {
		_, clientErr, _ := handshake(t, a.ClientTLS("c"), b.ServerTLS())
		require.ErrorIs(t, clientErr, transport.ErrIdentity)
	})
	t.Run("the server is of another authority", func(t *testing.T) {
		_, clientErr, _ := handshake(t, a.ClientTLS("b"), mustIdentity(t, other, "b").ServerTLS())
		require.ErrorAs(t, clientErr, &x509.UnknownAuthorityError{})
	})
	t.Run("the client is of another authority", func(t *testing.T) {
		client := mustIdentity(t, other, "a").ClientTLS("b/1")
		client.VerifyConnection = nil
		_, clientErr, serverErr := handshake(t, client, b.ServerTLS())
		require.Error(t, clientErr)
		require.ErrorContains(t, serverErr, "unknown authority")
	})
	t.Run("the client has no certificate", func(t *testing.T) {
		client := a.ClientTLS("b/1")
		client.Certificates = nil
		_, _, serverErr := handshake(t, client, b.ServerTLS())
		require.Error(t, serverErr)
	})
	t.Run("the client speaks TLS 1.2", func(t *testing.T) {
		client := a.ClientTLS("b/1")
		client.MinVersion, client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		_, _, serverErr := handshake(t, client, b.ServerTLS())
		require.ErrorContains(t, serverErr, "version")
	})
}

func TestIdentityCheckAndLoad(t *testing.T) {
	ca := mustCA(t)
	cert, key, roots, err := ca.PEM("a")
	require.NoError(t, err)
	dir := t.TempDir()
	var files []string
	for i, data := range [][]byte{cert, key, roots} {
		files = append(files, filepath.Join(dir, string(rune('0'+i))))
		require.NoError(t, os.WriteFile(files[i], data, 0o600))
	}
	i, err := transport.LoadIdentity(files[0], files[1], files[2])
	require.NoError(t, err)
	require.NoError(t, i.Check("a"))
	require.ErrorIs(t, i.Check("b"), transport.ErrIdentity)
	i.Certificate.Leaf = nil
	require.NoError(t, i.Check("a"))

	_, err = transport.LoadIdentity(files[0], files[1], filepath.Join(dir, "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = transport.ParseIdentity(cert, cert, roots)
	require.Error(t, err)
	_, err = transport.ParseIdentity(cert, key, key)
	require.ErrorContains(t, err, "roots")
	require.ErrorContains(t, (&transport.Identity{}).Check("a"), "Identity.Roots")
	require.ErrorContains(t, (&transport.Identity{Roots: i.Roots}).Check("a"), "Identity.Certificate")
}
