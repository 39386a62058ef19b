// Package consensus is the contract of consensus protocols and the one driver that makes a coterie.Replica of any of them.
package consensus
