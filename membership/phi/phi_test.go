package phi

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newAccrual(tb testing.TB, cfg Config) *Accrual {
	tb.Helper()
	a, err := New(cfg)
	require.NoError(tb, err)
	return a
}

// phiByDefinition is section 4.2 of the paper, slowly: the normal tail by numerical integration.
func phiByDefinition(intervals []time.Duration, silence, pause, least time.Duration) float64 {
	var mean, variance float64
	for _, d := range intervals {
		mean += d.Seconds() / float64(len(intervals))
	}
	for _, d := range intervals {
		variance += (d.Seconds() - mean) * (d.Seconds() - mean) / float64(len(intervals))
	}
	deviation := max(math.Sqrt(variance), least.Seconds())
	mean += pause.Seconds()
	density := func(x float64) float64 {
		y := (x - mean) / deviation
		return math.Exp(-y*y/2) / (deviation * math.Sqrt(2*math.Pi))
	}
	const steps = 20_000
	from, to := silence.Seconds(), max(mean, silence.Seconds())+12*deviation
	width, later := (to-from)/steps, 0.0
	for i := range steps {
		later += density(from+(float64(i)+0.5)*width) * width
	}
	return -math.Log10(later)
}

func TestPhiIsTheTailOfTheNormalDistribution(t *testing.T) {
	testsize.Checks(t, 60, 2000)
	rapid.Check(t, func(t *rapid.T) {
		pause := time.Duration(rapid.IntRange(1, 3000).Draw(t, "pause")) * time.Millisecond
		size := rapid.IntRange(2, 40).Draw(t, "window")
		a, err := New(Config{Window: size, Pause: pause, Threshold: 1000})
		require.NoError(t, err)
		kept := []time.Duration{750 * time.Millisecond, 1250 * time.Millisecond} // Pekko's two first ones
		now := start
		a.Heartbeat(now)
		for _, ms := range rapid.SliceOfN(rapid.IntRange(1, 2000), 0, 100).Draw(t, "intervals") {
			d := time.Duration(ms) * time.Millisecond
			now = now.Add(d)
			a.Heartbeat(now)
			kept = append(kept, d)
		}
		kept = kept[max(0, len(kept)-size):]
		silence := time.Duration(rapid.IntRange(0, 5000).Draw(t, "silence")) * time.Millisecond
		want := phiByDefinition(kept, silence, pause, 100*time.Millisecond)
		if want < 15 { // beyond, it is the integration that is wrong
			require.InDelta(t, want, a.Phi(now.Add(silence)), 0.01*(1+want))
		}
	})
}

// phi grows for ever, and does not jump where its formula changes.
func TestPhiGrowsWithoutBound(t *testing.T) {
	last := tailPhi(-40)
	for z := -40.0; z < 200; z += 0.01 {
		phi := tailPhi(z)
		require.GreaterOrEqual(t, phi, last, "at %v", z)
		require.Less(t, phi-last, 1+z*z/1000+1, "a jump at %v", z)
		last = phi
	}
	require.Greater(t, last, 8000.0)
	require.InDelta(t, tailPhi(29.9999), tailPhi(30.0001), 0.01)
	a := newAccrual(t, Config{})
	a.Heartbeat(start)
	require.False(t, math.IsInf(a.Phi(start.Add(100*time.Hour)), 0))
}

func TestDefaultsOfPekko(t *testing.T) {
	a := newAccrual(t, Config{})
	require.Equal(t, Config{
		Threshold: 8, Window: 1000, MinStdDev: 100 * time.Millisecond, Pause: 3 * time.Second, First: time.Second,
	}, a.cfg)
	now := start
	for range 2000 {
		a.Heartbeat(now)
		now = now.Add(time.Second)
	}
	// mean 1 s + pause 3 s + 5.61 deviations of 0.1 s, where the normal tail is 10^-8
	require.InDelta(t, 4.561, a.Deadline().Sub(a.last).Seconds(), 0.01)
	require.Len(t, a.window.intervals, 1000)
}

// "phi = 1 means about 10% mistakes": heartbeats drawn from the model itself are suspected at the rate that it says.
func TestAccuracyIsWhatTheThresholdSays(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	rounds := testsize.N(200_000, 2_000_000)
	for model, draw := range map[Model]func() time.Duration{
		Normal: func() time.Duration {
			return time.Second + time.Duration(rng.NormFloat64()*float64(150*time.Millisecond))
		},
		Exponential: func() time.Duration { return time.Duration(rng.ExpFloat64() * float64(time.Second)) },
	} {
		for _, threshold := range []float64{1, 2, 3} {
			a := newAccrual(t, Config{Model: model, Threshold: 1000, Pause: -1, MinStdDev: time.Millisecond})
			now, wrong := start, 0
			for i := range rounds {
				now = now.Add(max(draw(), 0))
				if i > 2000 && a.Phi(now) >= threshold {
					wrong++
				}
				a.Heartbeat(now)
			}
			rate := float64(wrong) / float64(rounds-2000)
			want := math.Pow(10, -threshold)
			t.Logf("model %d threshold %v: %.2g of heartbeats come later, the model says %.2g", model, threshold, rate, want)
			require.InDelta(t, want, rate, 0.2*want+4*math.Sqrt(want/float64(rounds)))
		}
	}
}

func TestDeadlineIsWhereLevelIsOne(t *testing.T) {
	fixed, err := NewFixed(time.Second)
	require.NoError(t, err)
	chen, err := NewChen(ChenConfig{Interval: time.Second})
	require.NoError(t, err)
	for name, d := range map[string]Detector{
		"normal": newAccrual(t, Config{}), "exponential": newAccrual(t, Config{Model: Exponential}), "fixed": fixed, "chen": chen,
	} {
		t.Run(name, func(t *testing.T) {
			require.Zero(t, d.Level(start))
			require.Zero(t, d.Deadline())
			rng, now := rand.New(rand.NewPCG(1, 2)), start
			for range 100 {
				now = now.Add(900*time.Millisecond + time.Duration(rng.IntN(200))*time.Millisecond)
				d.Heartbeat(now)
				require.Less(t, d.Level(d.Deadline().Add(-time.Millisecond)), 1.0)
				require.Greater(t, d.Level(d.Deadline().Add(time.Millisecond)), 1.0)
			}
			d.Heartbeat(now.Add(-time.Minute)) // time that runs backwards
			require.Less(t, d.Level(now.Add(500*time.Millisecond)), 1.0)
		})
	}
}

// A long silence is not learned from: the next crash is found as fast as the first.
func TestSilenceIsNotAnInterval(t *testing.T) {
	a := newAccrual(t, Config{Window: 10})
	now := start
	for range 20 {
		now = now.Add(time.Second)
		a.Heartbeat(now)
	}
	before := a.Deadline().Sub(now)
	now = now.Add(time.Hour)
	a.Heartbeat(now)
	require.Equal(t, before, a.Deadline().Sub(now))
}

// Chen, section VI: EA = mean of (A_i - eta*s_i) + (l+1)*eta over the last n heartbeats.
func TestChenIsItsFormula(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const eta, n = 100 * time.Millisecond, 8
	c, err := NewChen(ChenConfig{Interval: eta, Margin: 30 * time.Millisecond, Window: n})
	require.NoError(t, err)
	type heartbeat struct {
		at     time.Duration
		number int
	}
	var all []heartbeat
	number := 7
	for range 300 {
		number += 1 + rng.IntN(4)/3*rng.IntN(3) // some are lost
		at := time.Duration(number)*eta + time.Duration(rng.IntN(40))*time.Millisecond
		c.Numbered(start.Add(at), uint64(number))
		c.Numbered(start.Add(at), uint64(number)) // repeated
		all = append(all, heartbeat{at, number})
		recent := all[max(0, len(all)-n):]
		var mean float64
		for _, h := range recent {
			mean += float64(h.at-time.Duration(h.number)*eta) / float64(len(recent))
		}
		want := start.Add(time.Duration(mean) + time.Duration(number+1)*eta + 30*time.Millisecond)
		require.WithinDuration(t, want, c.Deadline(), time.Microsecond)
	}
	// A sender that starts anew, or comes back after a day, is another life.
	c.Heartbeat(start.Add(1000 * time.Hour))
	require.WithinDuration(t, start.Add(1000*time.Hour+eta+30*time.Millisecond), c.Deadline(), time.Microsecond)
}

func TestConfigNamesTheField(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Model": {Model: 2}, "Threshold": {Threshold: math.NaN()}, "Window": {Window: 1}, "MinStdDev": {MinStdDev: -1},
		"First": {First: -1},
	} {
		_, err := New(cfg)
		require.ErrorContains(t, err, field)
	}
	for field, cfg := range map[string]ChenConfig{
		"Interval": {}, "Margin": {Interval: 1, Margin: -1}, "Window": {Interval: 1, Window: -1},
	} {
		_, err := NewChen(cfg)
		require.ErrorContains(t, err, field)
	}
	_, err := NewFixed(0)
	require.ErrorContains(t, err, "time-out")
	_, err = NewMonitor[string](MonitorConfig{Dead: 0.5})
	require.ErrorContains(t, err, "Dead")
	_, err = NewMonitor[string](MonitorConfig{New: func() Detector { return nil }})
	require.ErrorContains(t, err, "New")
}

func TestHeartbeatAllocatesNothing(t *testing.T) {
	a := newAccrual(t, Config{})
	m, err := NewMonitor[coterie.NodeID](MonitorConfig{})
	require.NoError(t, err)
	now := start
	m.Heartbeat("a", now)
	require.Zero(t, testing.AllocsPerRun(5000, func() {
		now = now.Add(time.Second)
		a.Heartbeat(now)
		_ = a.Phi(now.Add(time.Second))
		m.Heartbeat("a", now)
		_ = m.Phi("a", now)
		_ = m.Check(now)
	}))
}

func BenchmarkHeartbeatPhi(b *testing.B) {
	a := newAccrual(b, Config{Pause: -1}) // where phi is not simply 0
	now := start
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		a.Heartbeat(now)
		_ = a.Phi(now.Add(1100 * time.Millisecond))
	}
}
