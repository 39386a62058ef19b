package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/coterie-go/coterie"
)

// ThrowawayCA is a certificate authority for tests, demonstrations and clusters that live in one process: its key
// exists in memory only and is gone with it, and nothing can be revoked. A production cluster has a real one. It is
// safe for concurrent use.
type ThrowawayCA struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// throwawayLife is how long the certificates of a ThrowawayCA are good: from an hour ago, since clocks differ.
const throwawayLife = 30 * 24 * time.Hour

// NewThrowawayCA makes an authority with a new key.
func NewThrowawayCA() (*ThrowawayCA, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "coterie throwaway authority"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("transport: throwaway authority: %w", err)
	}
	ca := &ThrowawayCA{cert: template, key: key}
	der, err := ca.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("transport: throwaway authority: %w", err)
	}
	return ca, nil
}

// Identity makes a node's key and certificate.
func (ca *ThrowawayCA) Identity(id coterie.NodeID) (*Identity, error) {
	cert, key, roots, err := ca.PEM(id)
	if err != nil {
		return nil, err
	}
	return ParseIdentity(cert, key, roots)
}

// PEM makes a node's key and certificate in the form that ParseIdentity and LoadIdentity take, for a node in another
// process.
func (ca *ThrowawayCA) PEM(id coterie.NodeID) (certPEM, keyPEM, rootsPEM []byte, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("transport: throwaway certificate: %w", err)
	}
	der, err := ca.sign(&x509.Certificate{
		URIs:        []*url.URL{nodeURI(id)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, public)
	if err != nil {
		return nil, nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("transport: throwaway certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), nil
}

func (ca *ThrowawayCA) sign(template *x509.Certificate, public any) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("transport: throwaway certificate: %w", err)
	}
	now := time.Now()
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(throwawayLife)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("transport: throwaway certificate: %w", err)
	}
	return der, nil
}
