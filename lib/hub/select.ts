/**
 * The files of a repository that a model needs, by name. Configuration and tokenizer files from the top folder, and the
 * weights in one form only: repositories keep several (safetensors and pickles, whole and for other programs), and each
 * is gigabytes.
 */
export function modelFiles(paths: readonly string[]): string[] {
  const top = paths.filter((path) => !path.includes('/'))
  const weights = WEIGHTS.map((form) => top.filter((path) => form.test(path) && !STATE.test(path)))
  return [...top.filter((path) => SIDE.test(path)), ...(weights.find((found) => found.length > 0) ?? [])]
}

const SIDE = /\.(?:json|txt|model|jinja|tiktoken)$/

/** Best first. */
const WEIGHTS = [
  /^(?:model|adapter_model)(?:-\d+-of-\d+)?\.safetensors$/,
  /\.safetensors$/,
  /^(?:pytorch_model|adapter_model)(?:-\d+-of-\d+)?\.bin$/,
  /\.(?:bin|pt|pth|ckpt)$/,
]

/** What a training run leaves beside its weights. */
const STATE = /^(?:training_args|optimizer|scheduler|scaler|rng_state.*)\.(?:bin|pt|pth)$/

/**
 * The files that match one of the patterns, as in huggingface_hub's `allow_patterns`: `*` stands for any characters, the
 * slash included, `?` for one, `[ab]` for one of some; a pattern that ends in a slash takes the folder.
 */
export function matchingFiles(paths: readonly string[], patterns: readonly string[]): string[] {
  const tests = patterns.map((pattern) => expression(pattern.endsWith('/') ? `${pattern}*` : pattern))
  return paths.filter((path) => tests.some((test) => test(path)))
}

type Piece = '*' | ((character: string) => boolean)

/** Compiled by hand: a regular expression with many stars takes exponential time. */
function expression(pattern: string): (path: string) => boolean {
  const pieces: Piece[] = []
  const characters = [...pattern]
  for (let i = 0; i < characters.length; i++) {
    const character = characters[i]!
    const end = characters.indexOf(']', characters[i + 1] === '!' ? i + 3 : i + 2)
    if (character === '*') pieces.push('*')
    else if (character === '?') pieces.push(() => true)
    else if (character === '[' && end > 0) {
      pieces.push(oneOf(characters.slice(i + 1, end)))
      i = end
    } else pieces.push((other) => other === character)
  }
  return (path) => matches(pieces, [...path])
}

function oneOf(set: string[]): (character: string) => boolean {
  const negated = set[0] === '!'
  const members = negated ? set.slice(1) : set
  const within = (character: string) =>
    members.some((first, i) =>
      members[i + 1] === '-' && i + 2 < members.length
        ? first <= character && character <= members[i + 2]!
        : first === character,
    )
  return (character) => within(character) !== negated
}

function matches(pieces: readonly Piece[], text: readonly string[]): boolean {
  let at = 0
  let piece = 0
  let star = -1
  let starAt = 0
  while (at < text.length) {
    const wanted = pieces[piece]
    if (wanted === '*') {
      star = piece++
      starAt = at
    } else if (wanted?.(text[at]!)) {
      piece++
      at++
    } else if (star >= 0) {
      // The last star takes one character more.
      piece = star + 1
      at = ++starAt
    } else return false
  }
  while (pieces[piece] === '*') piece++
  return piece === pieces.length
}
