// Package rpc makes calls between nodes that say what happened when they fail.
package rpc
