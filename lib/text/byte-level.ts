/**
 * GPT-2's mapping of bytes to printable characters: visible Latin-1 characters map to themselves, other bytes to characters from
 * U+0100 on.
 */
const characters: string[] = []
const bytes = new Map<number, number>()

for (let byte = 0, next = 0x100; byte < 256; byte++) {
  const visible = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff)
  const code = visible ? byte : next++
  characters.push(String.fromCharCode(code))
  bytes.set(code, byte)
}

export const byteAlphabet: readonly string[] = characters
export const SPACE = characters[0x20]!

const encoder = new TextEncoder()

/** Convert the UTF-8 bytes of a text to byte characters. */
export function toByteCharacters(text: string): string {
  let plain = true
  let mapped = ''
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit >= 0x80) {
      plain = false
      break
    }
    mapped += characters[unit]
  }
  if (plain) return mapped
  mapped = ''
  for (const byte of encoder.encode(text)) mapped += characters[byte]
  return mapped
}

/** Convert byte characters to bytes; a text with any other character is converted to its UTF-8. */
export function fromByteCharacters(text: string): Uint8Array {
  const decoded = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) {
    const byte = bytes.get(text.charCodeAt(i))
    if (byte === undefined) return encoder.encode(text)
    decoded[i] = byte
  }
  return decoded
}
