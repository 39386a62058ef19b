// Package text is a placeholder.
package text
