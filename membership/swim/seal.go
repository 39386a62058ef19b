package swim

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/coterie-go/coterie"
)

// Formats of a packet, its first byte.
const (
	formatPlain  = 1 // messages follow
	formatSealed = 2 // a nonce of 12 bytes and the messages under AES-GCM follow
	formatMax    = formatSealed
)

const nonceSize = 12

var (
	errUnsealed = errors.New("swim: packet in the clear, but this member has keys")
	errNoKey    = errors.New("swim: packet does not authenticate with any key")
)

// keyring seals with its first key and opens with any.
type keyring []cipher.AEAD

func newKeyring(keys [][]byte) (keyring, error) {
	var ring keyring
	for i, key := range keys {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("key %d of %d: %w", i+1, len(keys), err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("key %d of %d: %w", i+1, len(keys), err)
		}
		ring = append(ring, aead)
	}
	return ring, nil
}

// nonces never repeat for one seed, and those of two seeds do not meet but by the luck of 64 random bits: a nonce is
// 8 bytes that are a one-to-one function of the seed, and a counter. Random nonces of 96 bits would allow but 2^32
// packets under one key, by all members together (NIST SP 800-38D, section 8.3).
type nonces struct {
	seed  uint64
	count uint64
}

func (n *nonces) next() (nonce [nonceSize]byte) {
	// Each 2^32 packets the salt moves on by an odd constant, to where another seed is as unlikely as anywhere.
	salt := mix(n.seed + (n.count>>32)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(nonce[:8], salt)
	binary.BigEndian.PutUint32(nonce[8:], uint32(n.count))
	n.count++
	return nonce
}

// mix is the finalizer of SplitMix64, which is one-to-one.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// overhead is how many bytes a packet has beside its messages.
func (c *Core) overhead() int {
	if len(c.keys) > 0 {
		return 1 + nonceSize + c.keys[0].Overhead()
	}
	return 1
}

// seal makes a packet of messages.
func (c *Core) seal(to coterie.NodeID, messages []byte) []byte {
	packet := make([]byte, 0, c.overhead()+len(messages))
	if len(c.keys) == 0 {
		return append(append(packet, formatPlain), messages...)
	}
	nonce := c.nonces.next()
	packet = append(append(packet, formatSealed), nonce[:]...)
	c.bound = appendBound(c.bound[:0], c.cfg.ID, to)
	return c.keys[0].Seal(packet, nonce[:], messages, c.bound)
}

// open returns the messages of a packet.
func (c *Core) open(from coterie.NodeID, packet []byte) ([]byte, error) {
	if len(packet) == 0 {
		return nil, errors.New("swim: empty packet")
	}
	format, body := packet[0], packet[1:]
	switch {
	case format == 0 || format > formatMax:
		return nil, &coterie.FormatError{What: "swim packet", Got: format, Max: formatMax}
	case format == formatPlain && len(c.keys) > 0:
		return nil, errUnsealed
	case format == formatPlain:
		return body, nil
	case len(body) < nonceSize:
		return nil, errors.New("swim: sealed packet ends early")
	}
	c.bound = appendBound(c.bound[:0], from, c.cfg.ID)
	for _, key := range c.keys {
		if messages, err := key.Open(nil, body[:nonceSize], body[nonceSize:], c.bound); err == nil {
			return messages, nil
		}
	}
	return nil, errNoKey
}

// appendBound appends what a sealed packet is bound to: who sent it to whom, so that one cannot be turned against its
// sender or another member.
func appendBound(b []byte, from, to coterie.NodeID) []byte {
	b = append(b, formatSealed, byte(len(from)))
	return append(append(b, from...), to...)
}
