/**
 * Publishes events for Carillon, which tells every connected CMS editor that something changed.
 *
 * <p>Publish after your transaction has committed, because editors refetch as soon as the event reaches them.
 */
package carillon.publisher;
