/**
 * Select the files of a repository that a model needs: configuration and tokenizer files of the top folder, and the weights in
 * one format. Repositories often have several formats of gigabytes each.
 */
export function modelFiles(paths: readonly string[]): string[] {
  const top = paths.filter((path) => !path.includes('/'))
  const weights = WEIGHTS.map((form) => top.filter((path) => form.test(path) && !STATE.test(path)))
  return [...top.filter((path) => SIDE.test(path)), ...(weights.find((files) => files.length > 0) ?? [])]
}

const SIDE = /\.(?:json|txt|model|jinja|tiktoken|yaml)$/

/** File names of weights by format, preferred ones first. */
const WEIGHTS = [
  /^(?:model|adapter_model)(?:-\d+-of-\d+)?\.safetensors$/,
  /\.safetensors$/,
  /^(?:pytorch_model|adapter_model)(?:-\d+-of-\d+)?\.bin$/,
  /\.(?:bin|pt|pth|ckpt)$/,
]

/** Files of a training run that are not weights. */
const STATE = /^(?:training_args|optimizer|scheduler|scaler|rng_state.*)\.(?:bin|pt|pth)$/

/**
 * Return the files that match one of the patterns, as in huggingface_hub's `allow_patterns`: `*` matches any characters including
 * slashes, `?` one character, `[ab]` one of a set; a pattern that ends in a slash matches the files of the folder.
 */
export function matchingFiles(paths: readonly string[], patterns: readonly string[]): string[] {
  const tests = patterns.map((pattern) => globOf(pattern.endsWith('/') ? `${pattern}*` : pattern))
  return paths.filter((path) => tests.some((test) => test(path)))
}

type Piece = '*' | ((character: string) => boolean)

/** Compile a pattern as in {@link matchingFiles}. Not to a regular expression, which can take exponential time for many stars. */
export function globOf(pattern: string): (path: string) => boolean {
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
      // Extend the match of the last star by one character.
      piece = star + 1
      at = ++starAt
    } else return false
  }
  while (pieces[piece] === '*') piece++
  return piece === pieces.length
}
