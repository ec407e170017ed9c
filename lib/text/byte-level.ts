/**
 * GPT-2's way to write any byte as a printable character: visible Latin-1 characters stand for themselves, the other
 * bytes for the characters from U+0100 on.
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

/** The bytes of a text's UTF-8, as characters. */
export function toByteCharacters(text: string): string {
  let plain = true
  let made = ''
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit >= 0x80) {
      plain = false
      break
    }
    made += characters[unit]
  }
  if (plain) return made
  made = ''
  for (const byte of encoder.encode(text)) made += characters[byte]
  return made
}

/** Byte characters as bytes; text that holds any other character as its UTF-8. */
export function fromByteCharacters(text: string): Uint8Array {
  const made = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) {
    const byte = bytes.get(text.charCodeAt(i))
    if (byte === undefined) return encoder.encode(text)
    made[i] = byte
  }
  return made
}
