// Package swim is group membership at a constant cost for each member.
package swim
