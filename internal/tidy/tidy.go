// Package tidy holds no code: its test keeps the rules by which this library is built, so that they need not be
// remembered. See CONTRIBUTING.md for what they are and why.
package tidy
