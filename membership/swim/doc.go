// Package swim is group membership at a constant cost for each member: who is in the group, who is alive, and what each
// says of itself.
//
// Use it for groups of 8 to some thousands of members that come and go: to find the servers of a service, to spread
// load over those that are alive, to fail over. For a fixed handful of members package heartbeat is simpler and tells
// more. Views of different members may differ for a while, so do not let them decide who may write: that is what
// consensus and fencing tokens are for.
//
// Papers: Das, Gupta, Motivala, SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol, 2002
// (sections cited as "SWIM"); Dadgar, Phillips, Currey, Lifeguard: Local Health Awareness for More Accurate Failure
// Detection, 2018 ("Lifeguard"). Beyond them: views are compared by a hash at intervals; who hears a suspicion may check
// it out of turn; and partitions heal by themselves, since seeds and the unreachable are tried again at a low rate.
//
// # How long it takes, how often it errs
//
// P is ProbeInterval, n the number of members, least = SuspicionMult * max(1, log10 n) * P, and h the local health of
// the members that look, 0 where they are well and 8 at worst. In a calm network a crash is
//
//   - first probed after P * e/(e-1) on average, and by each other member within (2n-1) P (twice that while many others
//     are doubted);
//   - suspected one period (1+h) P later;
//   - declared between least, when three others confirm it, and 6 * least, when nobody does, after that;
//   - known to all about log2(n) * P/5 later, for news goes to 3 members every P/5; to whom it missed, within
//     SyncInterval.
//
// With the defaults and n = 32 that makes 0.8 + 0.5 + 4.5 + 0.3 s = 6.1 s; the simulator gives the following until all
// know (6 crashes for each line), and how often each member was suspected by mistake, and declared failed by
// mistake, a minute:
//
//	loss   median   worst   suspected   declared
//	  0%    5.4 s    5.9 s     0            0
//	 10%    5.7 s    6.5 s     0.12         0
//	 30%    6.6 s   12.6 s     6.5          0
//	 50%   11.8 s   20.6 s     6.5          0
//
// A probe fails by mistake, at a loss of p each way and k = 3 helpers, with the probability q * (1 - (1-p)^4)^k * q,
// where q = 1 - (1-p)^2: the direct probe, each way over a helper, and the one by the stream are all lost. A mistake
// becomes a failure if no refutation arrives in time, though each member tells several others each P/5.
//
// Load: a member sends one probe each P and answers one on average; news of one change costs it
// 4 * ceil(log10(n+1)) records of about 40 bytes; a comparison of views is one small packet each SyncInterval, and the
// view itself (40 n bytes) only if they differ.
//
// # Guarantees
//
//   - Completeness: every crash is known to every member that is connected, within the sum above.
//   - What is late changes nothing: within one life a member goes from alive to suspect to unreachable, dead or left, and
//     comes back only by its own word, with a higher incarnation. A member that was restarted outdoes what was said of its
//     earlier life.
//   - After a partition, and after every loss of messages, views become one without an operator.
//   - Accuracy is eventual and cannot be more: while messages take longer than suspicions last, members that are well
//     are declared unreachable. They come back as soon as they are heard.
//   - A broadcast arrives at each member at most once, and with high probability. There is no order.
//
// # Fault model
//
// Crashes, restarts without memory, pauses, loss, repetition, delay, reordering, one-way cuts. Not Byzantine: with
// Config.Keys packets of strangers are dropped, but a member can lie about others. A packet that was recorded can be
// played again; it is as harmless as one that is late. Keys hide contents, not sizes or who talks to whom. An ID belongs
// to one process at a time: two of the same outdo each other for ever, which Metrics.PastLives shows.
package swim
