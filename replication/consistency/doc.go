// Package consistency judges what clients saw: whether a history of concurrent operations is linearizable,
// sequential, causal or worse, why not, and in a picture.
package consistency
