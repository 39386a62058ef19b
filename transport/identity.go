package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"

	"github.com/coterie-go/coterie"
)

// ErrIdentity is what CheckCertificate and the TLS configurations of an Identity return when a certificate, valid or
// not, is not the node's: give the node a certificate with its id as a DNS name or as the URI coterie:<id>.
var ErrIdentity = errors.New("transport: certificate does not name the node")

// uriScheme is the scheme of the URI in a certificate that names a node.
const uriScheme = "coterie"

// Identity is how a node proves to its peers who it is, and knows them, over mutual TLS 1.3: by certificates of
// common authorities, each of which names its node. An older TLS is refused.
//
// A certificate names a node if one of its DNS names is equal to the node's id, byte for byte and without wildcards,
// or one of its URIs is coterie:<id> (with what an id has and a URI may not percent-encoded). The common name counts
// for nothing (RFC 6125, section 6.4.4). It must be good for both client and server authentication.
type Identity struct {
	Certificate tls.Certificate // this node's, with its private key
	Roots       *x509.CertPool  // authorities whose certificates peers have
}

// LoadIdentity reads an Identity from three PEM files: the node's certificate, followed by intermediates if any; its
// private key; the authorities of its peers.
func LoadIdentity(certFile, keyFile, rootsFile string) (*Identity, error) {
	var blocks [3][]byte
	for i, name := range []string{certFile, keyFile, rootsFile} {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("transport: load identity: %w", err)
		}
		blocks[i] = data
	}
	return ParseIdentity(blocks[0], blocks[1], blocks[2])
}

// ParseIdentity is LoadIdentity of what the files hold.
func ParseIdentity(certPEM, keyPEM, rootsPEM []byte) (*Identity, error) {
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("transport: identity: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rootsPEM) {
		return nil, errors.New("transport: identity: no certificate among the roots")
	}
	return &Identity{Certificate: cert, Roots: roots}, nil
}

// Check returns an error if the Identity is not complete or its certificate does not name the node.
func (i *Identity) Check(id coterie.NodeID) error {
	if i.Roots == nil {
		return errors.New("transport: Identity.Roots is required")
	}
	leaf := i.Certificate.Leaf
	if leaf == nil {
		if len(i.Certificate.Certificate) == 0 {
			return errors.New("transport: Identity.Certificate is required")
		}
		var err error
		if leaf, err = x509.ParseCertificate(i.Certificate.Certificate[0]); err != nil {
			return fmt.Errorf("transport: Identity.Certificate: %w", err)
		}
	}
	return CheckCertificate(leaf, id)
}

// ServerTLS returns a configuration that asks every client for a certificate of Identity.Roots. Who the client is
// remains to be asked: it says its id, and CheckCertificate or CheckPeer tells whether that is true.
func (i *Identity) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{i.Certificate},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              i.Roots,
		SessionTicketsDisabled: true, // a resumed session would outlive a change of Roots
	}
}

// ClientTLS returns a configuration to connect to a node by: it shows the certificate and refuses a server that has
// none of Identity.Roots, or one of another node. The network name that was dialled does not matter.
func (i *Identity) ClientTLS(peer coterie.NodeID) *tls.Config {
	roots := i.Roots
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.Certificate},
		RootCAs:      roots,
		// The standard check knows DNS names and addresses only. VerifyConnection makes it instead: the same chain,
		// and the node's id in place of the name.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return fmt.Errorf("%w: none was shown", ErrIdentity)
			}
			intermediates := x509.NewCertPool()
			for _, cert := range state.PeerCertificates[1:] {
				intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
			if err != nil {
				return err
			}
			return CheckCertificate(state.PeerCertificates[0], peer)
		},
	}
}

// CheckPeer returns an error unless the other side of a TLS connection, whose handshake is complete and has verified
// its certificate, is the node.
func CheckPeer(state tls.ConnectionState, id coterie.NodeID) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: none was shown", ErrIdentity)
	}
	return CheckCertificate(state.PeerCertificates[0], id)
}

// CheckCertificate returns an error, which is ErrIdentity, unless the certificate names the node. It does not verify
// the certificate.
func CheckCertificate(cert *x509.Certificate, id coterie.NodeID) error {
	if id == "" {
		return fmt.Errorf("%w: the id is empty", ErrIdentity)
	}
	if slices.Contains(cert.DNSNames, string(id)) {
		return nil
	}
	for _, u := range cert.URIs {
		if named, ok := nodeOfURI(u); ok && named == id {
			return nil
		}
	}
	return fmt.Errorf("%w: %q is neither among DNS names %q nor URIs %v", ErrIdentity, id, cert.DNSNames, cert.URIs)
}

// nodeURI returns the URI that names a node.
func nodeURI(id coterie.NodeID) *url.URL {
	return &url.URL{Scheme: uriScheme, Opaque: url.PathEscape(string(id))}
}

// nodeOfURI returns the node that a URI names. Only the decoded form counts: were the encoded one compared as well,
// the node "a%2Fb" could pass for "a/b".
func nodeOfURI(u *url.URL) (coterie.NodeID, bool) {
	if u.Scheme != uriScheme || u.Opaque == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", false
	}
	id, err := url.PathUnescape(u.Opaque)
	return coterie.NodeID(id), err == nil
}
