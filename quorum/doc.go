// Package quorum says which sets of nodes may decide, counts their votes, and finds out what a choice of quorums costs.
package quorum
