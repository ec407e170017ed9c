export const latin1 = (text: string) => Buffer.from(text, 'latin1')
export const data = (size: number) => Buffer.alloc(size, 'voxtorch ')

/** A tar archive of one file whose header says what it likes. */
export function makeTar(name: string, says: { size?: string; type?: string; link?: string }, content: Buffer): Buffer {
  const head = Buffer.alloc(512)
  head.write(name, 0)
  head.write('0000644\0', 100)
  head.write(`${says.size ?? content.length.toString(8).padStart(11, '0')} `, 124, 'latin1')
  head.write('00000000000 ', 136)
  head.write(says.type ?? '0', 156)
  head.write(says.link ?? '', 157)
  head.write('ustar\x0000', 257, 'latin1')
  head.write('        ', 148)
  const sum = head.reduce((total, byte) => total + byte, 0)
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return Buffer.concat([head, content, Buffer.alloc((512 - (content.length % 512)) % 512)])
}

/** Tar archives end with two empty blocks. */
export const archive = (...parts: Buffer[]) => Buffer.concat([...parts, Buffer.alloc(1024)])

/** 100,000 attributes that hold for all files, and a file with one of its own, again and again. */
export const attributes = () => {
  const keys = Array.from({ length: 100_000 }, (_, i) => `12 k${String(i).padStart(6, '0')}=\n`).join('')
  const file = Buffer.concat([pax('mtime=1'), makeTar('a', {}, data(10))])
  return archive(makeTar('pax', { type: 'g' }, latin1(keys)), ...Array.from({ length: 3000 }, () => file))
}
/** Attributes of the next file. */
export const pax = (record: string) => makeTar('pax', { type: 'x' }, latin1(`${record.length + 4} ${record}\n`))
