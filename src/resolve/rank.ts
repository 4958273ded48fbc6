/** FNV-1a over the text's UTF-16 units, then MurmurHash3's finalizer: FNV alone leaves similar texts in similar order. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * The addresses in this client's order, each once: by a hash of seed and address together, which is rendezvous hashing. The
 * clients' orders are independent of each other, and an address that comes or goes moves no other.
 *
 * @see https://en.wikipedia.org/wiki/Rendezvous_hashing
 */
export function ranked(addresses: readonly string[], seed: string): string[] {
  return [...new Set(addresses)]
    .map((address) => ({ address, rank: hash(`${seed} ${address}`) }))
    .sort((a, b) => b.rank - a.rank || (a.address < b.address ? -1 : 1))
    .map(({ address }) => address);
}
