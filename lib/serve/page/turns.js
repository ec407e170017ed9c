// The turns of the conversation on the page.

import { clipItem, element, makeClip } from './clip.js'
import { bars, views } from './insight.js'
import { mediaItem } from './media.js'

const find = (id) => document.getElementById(id)

/** Return the list item of an audio clip, an image or a video. */
export const itemOf = (clip, remove) => (clip.kind === undefined ? clipItem(clip, remove) : mediaItem(clip, remove))

export function showUser({ clips: sent, text, task }) {
  const list = element('ul', { className: 'clips', ariaLabel: 'Clips' }, ...sent.map((clip) => itemOf(clip)))
  const node = element('article', { className: 'turn user', ariaLabel: 'You' }, element('h3', { textContent: 'You' }))
  if (task) node.firstChild.append(element('span', { className: 'task', textContent: task.title }))
  if (sent.length > 0) node.append(list)
  const words = element('p', { textContent: text })
  if (text) node.append(words)
  show(node)
  return {
    node,
    /** Append to the transcript of the clips. */
    add(piece) {
      if (!words.isConnected) node.append(words)
      words.append(piece)
    },
  }
}

export function showAnswer(name) {
  const text = element('p')
  const node = element('article', { className: 'turn assistant', ariaLabel: 'Answer', ariaBusy: 'true' })
  node.append(element('h3', { textContent: name }), text)
  show(node)
  const beforeText = (part) => {
    const near = atEnd()
    node.insertBefore(part, text)
    if (near) scrollToEnd()
  }
  return {
    node,
    add(piece) {
      const near = atEnd()
      text.append(piece)
      if (near) scrollToEnd()
    },
    /** Show label probabilities, or encoded tiles and frames, before the text. */
    scores: (probabilities) => beforeText(bars(probabilities)),
    views: (all) => beforeText(views(all)),
    end(note) {
      node.ariaBusy = 'false'
      if (note) node.append(element('p', { className: 'note', textContent: note }))
    },
    playing(now) {
      node.dataset.voice = now ? 'playing' : 'silent'
    },
    /** Show a clip of the complete spoken answer. */
    audio(parts, rate) {
      const samples = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0))
      let at = 0
      for (const part of parts) {
        samples.set(part, at)
        at += part.length
      }
      const near = atEnd()
      const clip = clipItem(makeClip('Answer', samples, { rate }))
      node.append(element('ul', { className: 'clips', ariaLabel: 'Audio of the answer' }, clip))
      if (near) scrollToEnd()
    },
  }
}

function show(node) {
  find('welcome').hidden = true
  find('log').hidden = false
  find('log').append(node)
  scrollToEnd()
}

const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 80
const scrollToEnd = () => scrollTo(0, document.documentElement.scrollHeight)

/** Remove a node and free the resources of its clips. */
export function discard(node) {
  for (const item of node.querySelectorAll('.clip')) item.discard()
  node.remove()
}
