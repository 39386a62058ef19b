package resilience

import (
	"container/list"
	"errors"
	"sync"
)

// PerKeyConfig configures a PerKey.
type PerKeyConfig[K comparable, V any] struct {
	New     func(K) V // required: makes the value of a key that is asked for first
	MaxKeys int       // values kept; for one more that of the key longest unused is forgotten; default 10000
}

// PerKey keeps a value for each key: a limiter for each user, a breaker for each peer. Keys come from outside, and so
// their number is bounded: one that was forgotten starts anew.
type PerKey[K comparable, V any] struct {
	cfg PerKeyConfig[K, V]

	mu    sync.Mutex // guards what follows
	byKey map[K]*list.Element
	order list.List // of keyed[K, V], the longest unused first
}

type keyed[K comparable, V any] struct {
	key   K
	value V
}

// NewPerKey makes a PerKey without keys.
func NewPerKey[K comparable, V any](cfg PerKeyConfig[K, V]) (*PerKey[K, V], error) {
	if cfg.MaxKeys == 0 {
		cfg.MaxKeys = 10000
	}
	if cfg.New == nil {
		return nil, errors.New("resilience: PerKeyConfig.New is required")
	}
	if cfg.MaxKeys < 0 {
		return nil, errors.New("resilience: PerKeyConfig.MaxKeys is negative")
	}
	return &PerKey[K, V]{cfg: cfg, byKey: make(map[K]*list.Element)}, nil
}

// Get returns the value of a key, and makes it if there is none. New is called by one goroutine at a time and must not
// call Get.
func (p *PerKey[K, V]) Get(key K) V {
	p.mu.Lock()
	defer p.mu.Unlock()
	if el := p.byKey[key]; el != nil {
		p.order.MoveToBack(el)
		return el.Value.(keyed[K, V]).value
	}
	value := p.cfg.New(key)
	for len(p.byKey) >= p.cfg.MaxKeys {
		oldest := p.order.Remove(p.order.Front()).(keyed[K, V])
		delete(p.byKey, oldest.key)
	}
	p.byKey[key] = p.order.PushBack(keyed[K, V]{key, value})
	return value
}

// Len is how many keys there are.
func (p *PerKey[K, V]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byKey)
}
