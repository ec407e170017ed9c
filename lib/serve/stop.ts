import type { ChatDelta } from './chat-model.js'

/** An answer up to the first of some texts, which is left out. What may become one of them is held back. */
export async function* untilStop(
  answer: AsyncIterable<ChatDelta>,
  stops: readonly string[],
): AsyncGenerator<ChatDelta> {
  let held = ''
  for await (const delta of answer) {
    held += delta.text
    const ends = stops.map((stop) => held.indexOf(stop)).filter((place) => place >= 0)
    const found = ends.length > 0
    const certain = found ? Math.min(...ends) : held.length - mostHeld(held, stops)
    yield { ...delta, text: held.slice(0, certain) }
    if (found) return
    held = held.slice(certain)
  }
  if (held !== '') yield { text: held, tokens: 0 }
}

/** How many letters at the end may be the beginning of a stop. */
function mostHeld(text: string, stops: readonly string[]): number {
  const overlap = (stop: string) => {
    for (let length = Math.min(stop.length - 1, text.length); length > 0; length--) {
      if (text.endsWith(stop.slice(0, length))) return length
    }
    return 0
  }
  return Math.max(0, ...stops.map(overlap))
}
